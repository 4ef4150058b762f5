"""`quire limits`: the table of limits, as a server with these options would hold them.

Knows: the plan, the table. Does not know: who checks a limit.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from quire.cli.prepare import prepare
from quire.limits import Limit, table
from quire.settings import EngineSettings, ServerSettings

NO_BOUND = "no bound"


def show(
    model: str | None, revision: str | None, engine: EngineSettings, server: ServerSettings, as_json: bool
) -> None:
    """Print it to stdout: a line for each limit, or one JSON object with the list `limits`."""
    plan = prepare(model, revision, engine).plan
    rows = table(server, plan.max_model_len, plan.max_num_seqs)
    if as_json:
        typer.echo(json.dumps({"limits": [{**asdict(row), "option": row.flag or None} for row in rows]}, indent=2))
        return
    lines = [("limit", "value", "over it", "changed by"), *[_cells(row) for row in rows]]
    widths = [max([len(line[column]) for line in lines]) for column in range(4)]
    for line, note in zip(lines, ["", *[row.note for row in rows]], strict=True):
        cells = "  ".join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)])
        typer.echo(f"{cells}  {note}".rstrip())


def value_of(row: Limit) -> str:
    """The value and its unit, as people read them."""
    return NO_BOUND if row.value is None else f"{row.value:,.15g} {row.unit}"


def _cells(row: Limit) -> tuple[str, str, str, str]:
    return row.name, value_of(row), "" if row.status is None else str(row.status), row.flag
