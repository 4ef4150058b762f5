"""`quire bench overload`: what a server gives when far more is asked than it can.

Knows: the command's options. Does not know: how it is measured (`overload_load.py`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from quire.cli.bench.load_options import (
    URL,
    ApiKey,
    AsJson,
    IgnoreEos,
    InputTokens,
    Model,
    OnlyToken,
    OutputTokens,
    PlainUrl,
    Seed,
)

Rate = Annotated[float, typer.Option("--rate", help="Requests a second that are too many, to find saturation.")]
Times = Annotated[float, typer.Option("--times", help="What is asked then, as a multiple of saturation.")]
Deadline = Annotated[float, typer.Option("--deadline-ms", help="Of each first token, sent as x-quire-deadline-ms.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long too much is asked.")]
SaturationSeconds = Annotated[float, typer.Option("--saturation-seconds", help="How long saturation is measured.")]
Pid = Annotated[int | None, typer.Option("--pid", help="The server's process, to see its memory.")]


def overload(
    rate: Rate,
    url: PlainUrl = URL,
    model: Model = "",
    times: Times = 4.0,
    deadline_ms: Deadline = 2000.0,
    input_tokens: InputTokens = 512,
    output_tokens: OutputTokens = 32,
    seconds: Seconds = 300.0,
    saturation_seconds: SaturationSeconds = 40.0,
    pid: Pid = None,
    ignore_eos: IgnoreEos = False,
    only_token: OnlyToken = None,
    api_key: ApiKey = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Far more than a server can do, each request with a deadline: first tokens in time, goodput beside saturation."""
    from quire.cli.bench.commands import show
    from quire.cli.bench.http_client import Target
    from quire.cli.bench.overload_load import OverloadLoad, run
    from quire.cli.bench.workload import Sizes

    sizes = Sizes(input_tokens, output_tokens)
    load = OverloadLoad(rate, deadline_ms, times, sizes, seconds, saturation_seconds, pid, seed)
    show(run(Target(url, model, False, ignore_eos, api_key, False, only_token), load), as_json)
