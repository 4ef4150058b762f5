"""A comparison, or any other measurement, as a file of `benchmarks/results`.

Knows: what such a file holds. Does not know: the figures.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from quire import __version__
from quire.errors import StartError
from quire.hardware import probe


def write_record(path: Path, found: dict[str, Any]) -> None:
    """`machine`, `date`, `version`, `work` and `ours`; the commit is for whoever keeps the file to add."""
    work = {name: value for name, value in found.items() if name not in ("policies", "law", "limit_ratio")}
    ours = {name: found[name] for name in ("policies", "limit_ratio", "law")}
    write_object(path, {"work": work, "ours": ours})


def write_object(path: Path, found: dict[str, Any]) -> None:
    """`found` behind `machine`, `date` and `version`; raises `StartError` where it cannot be written."""
    hardware = probe()
    machine = f"{hardware.num_cores} cores {hardware.cpu_model}"
    record = {"machine": machine, "date": date.today().isoformat(), "version": __version__, **found}
    try:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as problem:
        raise StartError("the record cannot be written", got=str(path), hint=str(problem)) from problem
