"""`quire bench sim-check`: the same requests served by this machine and by the simulator, side by side.

Knows: the command's options. Does not know: how either is run (`sim_check_run.py`), or what is compared
(`sim_check_report.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quire.cli.flags import with_settings
from quire.settings import EngineSettings

Model = Annotated[str | None, typer.Argument(help="A folder or hub id. Default: bundled.", metavar="[MODEL]")]
Trace = Annotated[Path, typer.Option("--trace", help="Whose lengths are asked for: Azure, BurstGPT or Mooncake.")]
Shrink = Annotated[float, typer.Option("--shrink", help="The trace's lengths are divided by this.")]
Loads = Annotated[str, typer.Option("--loads", help="Shares of the simulated capacity at which requests come.")]
Seconds = Annotated[float, typer.Option("--seconds", help="Of each load: so long requests keep coming.")]
Calibrate = Annotated[
    float,
    typer.Option(
        "--calibrate-seconds",
        help="Half the time for which steps are timed around a load; the law comes from them alone.",
    ),
]
Turns = Annotated[int, typer.Option("--turns", help="Into so many a load is cut; steps are timed around each of them.")]
Seed = Annotated[int, typer.Option("--seed", help="Where ids and arrivals come from.")]
Law = Annotated[Path | None, typer.Option("--law", help="Keep the law in this .json file, for `quire sim --law`.")]
Record = Annotated[Path | None, typer.Option("--record", help="Keep the result with machine and date in this file.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; the table goes to stderr.")]


@with_settings(engine=EngineSettings)
def sim_check(
    trace: Trace,
    model: Model = None,
    shrink: Shrink = 1.0,
    loads: Loads = "0.4,0.75,1.5",
    seconds: Seconds = 60.0,
    calibrate_seconds: Calibrate = 20.0,
    seed: Seed = 1,
    turns: Turns = 4,
    law: Law = None,
    record: Record = None,
    revision: Revision = None,
    as_json: AsJson = False,
    *,
    engine: EngineSettings,
) -> None:
    """Time steps of a model, serve a trace's requests for real, simulate the very same, and say how far off that is."""
    from quire.cli.bench.savings_record import write_object
    from quire.cli.bench.sim_check_report import table
    from quire.cli.bench.sim_check_run import Asked, run
    from quire.sim.law import write_law

    asked = Asked(model, revision, trace, shrink, loads, seconds, calibrate_seconds, seed, turns)
    found, device = run(asked, engine, lambda text: typer.echo(text, err=True))
    typer.echo("\n".join(table(found)), err=as_json)
    if as_json:
        typer.echo(json.dumps(found))
    if law is not None:
        write_law(law, device)
    if record is not None:
        write_object(record, {"work": found["work"], "ours": {"loads": found["loads"], "law": found["law"]}})
