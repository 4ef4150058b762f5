"""`quire bench stall`: answers that stream while long prompts keep arriving.

Knows: the command's options. Does not know: how it is measured (`stall_load.py`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from quire.cli.bench.load_options import URL, ApiKey, AsJson, IgnoreEos, Model, OnlyToken

Url = Annotated[str, typer.Option("--url", help="The server's root, or its /v1.")]
Streams = Annotated[int, typer.Option("--streams", help="Answers that stream all the time.")]
StreamTokens = Annotated[int, typer.Option("--stream-tokens", help="Length of each; the next one follows at once.")]
PromptTokens = Annotated[int, typer.Option("--prompt-tokens", help="Length of the long prompts, about.")]
PromptsAtOnce = Annotated[
    int, typer.Option("--prompts-at-once", help="Long prompts that are always there: each is followed at once.")
]
PromptRate = Annotated[
    float | None, typer.Option("--prompt-rate", help="Long prompts a second at even distances instead, whatever waits.")
]
Seconds = Annotated[float, typer.Option("--seconds", help="How long prompts arrive and all is measured.")]
AloneSeconds = Annotated[float, typer.Option("--alone-seconds", help="How long the streams are measured before.")]
Target = Annotated[float | None, typer.Option("--target", help="Seconds that the 99th percentile is held against.")]
TokenIds = Annotated[
    bool,
    typer.Option("--token-ids", help="Ask for ids, so that half characters are told too (quire and vLLM know this)."),
]
Seed = Annotated[int, typer.Option("--seed", help="Where the words of prompts come from.")]


def stall(
    url: Url = URL,
    model: Model = "",
    streams: Streams = 8,
    stream_tokens: StreamTokens = 1024,
    prompt_tokens: PromptTokens = 4096,
    prompts_at_once: PromptsAtOnce = 1,
    prompt_rate: PromptRate = None,
    seconds: Seconds = 60.0,
    alone_seconds: AloneSeconds = 5.0,
    target: Target = None,
    ignore_eos: IgnoreEos = False,
    token_ids: TokenIds = False,
    only_token: OnlyToken = None,
    api_key: ApiKey = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """What long prompts do to answers that stream, on any OpenAI-compatible server: time between tokens, throughput."""
    from quire.cli.bench.commands import show
    from quire.cli.bench.http_client import Target as Server
    from quire.cli.bench.stall_load import StallLoad, run

    load = StallLoad(
        streams, stream_tokens, prompt_tokens, prompts_at_once, prompt_rate, seconds, alone_seconds, target, seed
    )
    show(run(Server(url, model, False, ignore_eos, api_key, token_ids, only_token), load), as_json)
