"""`quire bench flood`: what a tenant who asks once a second gets while another floods the server.

Knows: the command's options. Does not know: how it is measured (`flood_load.py`).
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

Rate = Annotated[float, typer.Option("--rate", help="Requests a second of the quiet tenant, evenly.")]
FloodRate = Annotated[float, typer.Option("--flood-rate", help="Requests a second of the other, at random times.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long both are measured together.")]
AloneSeconds = Annotated[float, typer.Option("--alone-seconds", help="How long the quiet tenant is measured before.")]


def flood(
    url: PlainUrl = URL,
    model: Model = "",
    rate: Rate = 1.0,
    flood_rate: FloodRate = 100.0,
    input_tokens: InputTokens = 256,
    output_tokens: OutputTokens = 64,
    seconds: Seconds = 60.0,
    alone_seconds: AloneSeconds = 60.0,
    ignore_eos: IgnoreEos = False,
    only_token: OnlyToken = None,
    api_key: ApiKey = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """One tenant's first tokens beside another's flood (`user` tells them apart), and what both get in all."""
    from quire.cli.bench.commands import show
    from quire.cli.bench.flood_load import FloodLoad, run
    from quire.cli.bench.http_client import Target
    from quire.cli.bench.workload import Sizes

    load = FloodLoad(rate, flood_rate, Sizes(input_tokens, output_tokens), seconds, alone_seconds, seed)
    show(run(Target(url, model, False, ignore_eos, api_key, False, only_token), load), as_json)
