"""Options that the commands with a load of their own share: which server, how it is asked, how figures are shown.

Knows: names and help. Does not know: what any command measures.
"""

from __future__ import annotations

from typing import Annotated

import typer

URL = "http://127.0.0.1:8000"

PlainUrl = Annotated[str, typer.Option("--url", help="The server's root, or its /v1; plain HTTP.")]
Model = Annotated[str, typer.Option("--model", help="Model to ask for. Default: the server's first.")]
InputTokens = Annotated[int, typer.Option("--input-tokens", help="Prompt tokens of each request, about.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", help="Most tokens of each answer.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Full-length answers (quire and vLLM know this field).")]
OnlyToken = Annotated[
    int | None,
    typer.Option("--only-token", help="Make it draw this id always (logit_bias): readable text of random weights."),
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Sent as a bearer token.")]
Seed = Annotated[int, typer.Option("--seed", help="Where words and times come from.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]
