"""`quire bench serve`: open-loop load on any OpenAI-compatible server.

Knows: which workload is asked for, and how to learn what a word costs there. Does not know: which server it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx

from quire.cli.bench import open_loop
from quire.cli.bench.http_client import Outcome, Target, send
from quire.cli.bench.workload import Ask, Sizes, TextMaker, made_up, replayed
from quire.errors import InvalidSetting, StartError
from quire.sim.trace import read_trace

WORKLOADS = ("random", "shared-prefix", "trace")
PROBE_TOKENS = (16, 116)  # two prompts, so that a word's cost and a prompt's own cost can be told apart


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: `rate` requests a second (None: a trace's own), `num_requests` of them, drawn from `seed`."""

    workload: str
    num_requests: int
    rate: float | None
    sizes: Sizes
    trace: Path | None = None
    seed: int = 0
    timeout_s: float = 600.0
    ttft_goal_s: float | None = None

    def check(self) -> None:
        """Refuse a load that cannot be meant."""
        if self.workload not in WORKLOADS:
            raise InvalidSetting("--workload has no such value", got=self.workload, allowed=", ".join(WORKLOADS))
        if self.workload == "trace" and self.trace is None:
            raise InvalidSetting("--workload trace needs a trace", hint="Name it with --trace FILE.")
        if self.workload != "trace" and self.rate is None:
            raise InvalidSetting("--rate is missing", allowed="requests a second, above 0")
        if self.rate is not None and not 0 < self.rate < 1e6:
            raise InvalidSetting("--rate is out of range", got=self.rate, allowed="above 0, below 1000000")


async def measure(target: Target, load: Load, on_done: Callable[[], None] | None = None) -> dict[str, Any]:
    """Run `load` against `target` and report. Raises `StartError` where the server cannot be asked at all."""
    load.check()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=load.timeout_s, limits=limits, trust_env=False) as client:
        target, text = await introduce(client, target)
        asks = arrivals(load, text)

        async def ask_once(ask: Ask, start: float) -> Outcome:
            return await send(client, target, ask, start)

        outcomes = await open_loop.run(asks, ask_once, on_done)
    return {
        "url": target.url,
        "model": target.model,
        "workload": load.workload,
        "rate": load.rate,
        "seed": load.seed,
        **open_loop.report(outcomes, load.ttft_goal_s),
    }


def arrivals(load: Load, text: TextMaker) -> list[Ask]:
    """Every request of the load, with its time."""
    rng = Random(load.seed)
    if load.workload == "trace" and load.trace is not None:
        return replayed(read_trace(load.trace, load.num_requests), rng, load.rate, text)
    shared = load.sizes.shared_tokens if load.workload == "shared-prefix" else 0
    return made_up(rng, load.num_requests, load.rate or 1.0, replace(load.sizes, shared_tokens=shared), text)


async def introduce(client: httpx.AsyncClient, target: Target) -> tuple[Target, TextMaker]:
    """`target` with its model's name, and who writes prompts for it; `StartError` if the server cannot be asked."""
    target = replace(target, model=target.model or await first_model(client, target))
    return target, await probe(client, target)


async def first_model(client: httpx.AsyncClient, target: Target) -> str:
    """The name of the first model that the server lists; `StartError` if it does not say."""
    try:
        response = await client.get(f"{target.base}/models", headers=target.headers)
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as problem:
        raise StartError(
            "the server does not say which models it has",
            got=f"{type(problem).__name__} from {target.base}/models",
            hint="Is it running, and is --url right? Or name the model with --model.",
        ) from None


async def probe(client: httpx.AsyncClient, target: Target) -> TextMaker:
    """Ask twice for one token, and learn from the server's own count what words cost."""
    counted = []
    for num_words in PROBE_TOKENS:
        ask = Ask(0.0, TextMaker().words(Random(num_words), num_words), 1)
        outcome = await send(client, target, ask, 0.0)
        if outcome.failure not in (None, "no text"):
            raise StartError("the server does not answer the first request", got=outcome.failure, hint="See its log.")
        counted.append(outcome.num_prompt_tokens)
    per_word = (counted[1] - counted[0]) / (PROBE_TOKENS[1] - PROBE_TOKENS[0])
    if per_word <= 0:  # a server that sends no usage: take a word for a token
        return TextMaker()
    return TextMaker(per_word, counted[0] - PROBE_TOKENS[0] * per_word)


def run(target: Target, load: Load, on_done: Callable[[], None] | None = None) -> dict[str, Any]:
    """`measure` for callers without an event loop."""
    return asyncio.run(measure(target, load, on_done))
