"""`quire bench flood`: what a tenant who asks once a second gets while another floods the server.

Knows: the command's options. Does not know: how it is measured (`flood_load.py`).
"""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[str, typer.Option("--url", help="The server's root, or its /v1; plain HTTP.")]
Model = Annotated[str, typer.Option("--model", help="Model to ask for. Default: the server's first.")]
Rate = Annotated[float, typer.Option("--rate", help="Requests a second of the quiet tenant, evenly.")]
FloodRate = Annotated[float, typer.Option("--flood-rate", help="Requests a second of the other, at random times.")]
InputTokens = Annotated[int, typer.Option("--input-tokens", help="Prompt tokens of each request, about.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", help="Most tokens of each answer.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long both are measured together.")]
AloneSeconds = Annotated[float, typer.Option("--alone-seconds", help="How long the quiet tenant is measured before.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Full-length answers (quire and vLLM know this field).")]
OnlyToken = Annotated[
    int | None,
    typer.Option("--only-token", help="Make it draw this id always (logit_bias): readable text of random weights."),
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Sent as a bearer token.")]
Seed = Annotated[int, typer.Option("--seed", help="Where words and times come from.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]


def flood(
    url: Url = "http://127.0.0.1:8000",
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
