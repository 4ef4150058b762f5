"""Streams that never stop, long prompts that keep arriving, and what was seen of both in one window of time.

Knows: when what is sent, and what each figure means. Does not know: HTTP (`http_client.py`), or which server it is.

    streams   |--first tokens--|-- alone --|--------- prompts arrive: the window ---------|
    prompts                                |--4096--|--4096--|--4096--|--4096--|--4096--|....  read to their end

A server that reads each prompt at once stalls every stream; one that reads little by little wastes what a large chunk
would have gained. So the time between tokens and the throughput belong together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import inf
from random import Random
from typing import Any

import httpx

from quire.cli.bench.figures import significant, spread
from quire.cli.bench.http_client import Outcome, Target, send
from quire.cli.bench.serve import introduce
from quire.cli.bench.workload import Ask, TextMaker
from quire.errors import InvalidSetting, StartError

STREAM_INPUT_TOKENS = 64
FIRST_TOKENS = 4  # of each stream, before anything is measured
PATIENCE_S = 600.0
LOOK_S = 0.02
READ = (None, "no text")  # what becomes of a prompt that was read

Send = Callable[[Ask, Outcome], Awaitable[Outcome]]
Task = asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class StallLoad:
    """`num_streams` answers that stream; `prompts_at_once` long prompts, or `prompt_rate` of them a second."""

    num_streams: int = 8
    stream_tokens: int = 1024
    prompt_tokens: int = 4096
    prompts_at_once: int = 1
    prompt_rate: float | None = None
    seconds: float = 60.0
    alone_seconds: float = 5.0
    target_s: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse a load that cannot be meant."""
        lows = {"streams": self.num_streams, "stream-tokens": self.stream_tokens, "prompt-tokens": self.prompt_tokens}
        for name, value in (lows | {"prompts-at-once": self.prompts_at_once}).items():
            if value < 1:
                raise InvalidSetting(f"--{name} is too small", got=value, allowed="1 or more")
        times = {"seconds": self.seconds, "prompt-rate": self.prompt_rate, "target": self.target_s}
        for name, time_s in times.items():
            if time_s is not None and not 0 < time_s < inf:
                raise InvalidSetting(f"--{name} is out of range", got=time_s, allowed="a number above 0")
        if not 0 <= self.alone_seconds < inf:
            raise InvalidSetting("--alone-seconds is out of range", got=self.alone_seconds, allowed="0 or more")


@dataclass(slots=True)
class Seen:
    """Everything that was sent, and the two moments between which it counts; seconds since the start."""

    streams: list[Outcome] = field(default_factory=list)
    prompts: list[Outcome] = field(default_factory=list)
    alone_s: float = 0.0
    begin_s: float = 0.0
    end_s: float = 0.0


async def measure(target: Target, load: StallLoad) -> dict[str, Any]:
    """Run `load` against `target`. Raises `StartError` where the server cannot be asked at all."""
    load.check()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        target, text = await introduce(client, target)
        start = time.perf_counter()

        async def ask(one: Ask, outcome: Outcome) -> Outcome:
            return await send(client, target, one, start, outcome)

        seen = await observe(load, text, ask, lambda: time.perf_counter() - start)
    settings = {"url": target.url, "model": target.model, "streams": load.num_streams, "target_s": load.target_s}
    return settings | report(seen, load)


async def observe(load: StallLoad, text: TextMaker, ask: Send, now: Callable[[], float]) -> Seen:
    """Send everything; the prompts that were sent in the window are waited for, the streams are left."""
    seen, rng, numbers = Seen(), Random(load.seed), count()

    async def keep(outcomes: list[Outcome], num_input: int, num_output: int) -> None:
        while seen.end_s == 0.0:
            outcome = Outcome(now())
            outcomes.append(outcome)
            words = f"{next(numbers)} {text.words(rng, num_input)}"
            await ask(Ask(outcome.due_s, words, num_output), outcome)
            if outcome.failure is not None:
                await asyncio.sleep(LOOK_S)

    async def once() -> None:
        outcome = Outcome(now())
        seen.prompts.append(outcome)
        words = f"{next(numbers)} {text.words(rng, load.prompt_tokens)}"
        await ask(Ask(outcome.due_s, words, 1), outcome)

    streams = [
        asyncio.create_task(keep(seen.streams, STREAM_INPUT_TOKENS, load.stream_tokens))
        for _ in range(load.num_streams)
    ]
    try:
        await _first_tokens(seen, load, now)
        seen.alone_s = now()
        await asyncio.sleep(load.alone_seconds)
        seen.begin_s = now()
        if load.prompt_rate is None:
            prompts = [
                asyncio.create_task(keep(seen.prompts, load.prompt_tokens, 1)) for _ in range(load.prompts_at_once)
            ]
            await asyncio.sleep(load.seconds)
        else:
            prompts = await _evenly(once, load.prompt_rate, load.seconds)
        seen.end_s = now()
        await asyncio.gather(*prompts)
    finally:
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return seen


async def _first_tokens(seen: Seen, load: StallLoad, now: Callable[[], float]) -> None:
    """Until every stream speaks."""
    while sum(len(outcome.chunk_s) >= FIRST_TOKENS for outcome in seen.streams) < load.num_streams:
        failures = [outcome.failure for outcome in seen.streams if outcome.failure]
        if failures or now() > PATIENCE_S:
            raise StartError(
                "the streams do not begin", got=failures[0] if failures else "silence", hint="See its log."
            )
        await asyncio.sleep(LOOK_S)


async def _evenly(once: Callable[[], Coroutine[Any, Any, None]], rate: float, seconds: float) -> list[Task]:
    """Tasks begun `rate` times a second, for so long."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    tasks: list[Task] = []
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, begin + number / rate - loop.time()))
        tasks.append(asyncio.create_task(once()))
    await asyncio.sleep(max(0.0, begin + seconds - loop.time()))
    return tasks


def report(seen: Seen, load: StallLoad) -> dict[str, Any]:
    """The figures of the window.

    inter_token_s: between tokens of the streams that ended in the window; alone_inter_token_s the same before it.
    output_tokens_per_s: of the streams. prompt_tokens_per_s: a prompt that is read partly outside the window counts by
    the part of its time inside. tokens_per_s: both. prompt_ttft_s: from when a prompt was sent to its first token.
    """
    begin_s, end_s = seen.begin_s, seen.end_s
    span_s = max(1e-9, end_s - begin_s)
    gaps = gaps_within(seen.streams, begin_s, end_s)
    done = [outcome for outcome in seen.prompts if outcome.failure in READ]
    num_output = sum(begin_s <= at_s < end_s for outcome in seen.streams for at_s in outcome.chunk_s)
    num_prompt = sum(_share(outcome, begin_s, end_s) * outcome.num_prompt_tokens for outcome in done)
    inter_token = spread(gaps)
    p99_s = inter_token["p99"] if inter_token else inf
    failures = (outcome.failure for outcome in [*seen.streams, *seen.prompts] if outcome.failure not in READ)
    return {
        "met": None if load.target_s is None else p99_s <= load.target_s,
        "inter_token_s": inter_token,
        "alone_inter_token_s": spread(gaps_within(seen.streams, seen.alone_s, begin_s)),
        "tokens_per_s": significant((num_output + num_prompt) / span_s),
        "output_tokens_per_s": significant(num_output / span_s),
        "prompt_tokens_per_s": significant(num_prompt / span_s),
        "prompt_ttft_s": spread(_first_s(outcome) - outcome.due_s for outcome in done),
        "prompts": len(done),
        "mean_prompt_tokens": significant(sum(outcome.num_prompt_tokens for outcome in done) / max(1, len(done))),
        "seconds": significant(span_s),
        "failures": dict(Counter(failures)),
    }


def gaps_within(streams: Sequence[Outcome], begin_s: float, end_s: float) -> list[float]:
    """Seconds between neighbouring tokens, of those whose later one came in that time."""
    return [
        later - earlier
        for outcome in streams
        for earlier, later in pairwise(outcome.chunk_s)
        if begin_s <= later < end_s
    ]


def _share(outcome: Outcome, begin_s: float, end_s: float) -> float:
    """Part of the time from sending to the first token that lies between."""
    sent_s, first_s = outcome.due_s, _first_s(outcome)
    return max(0.0, min(first_s, end_s) - max(sent_s, begin_s)) / max(1e-9, first_s - sent_s)


def _first_s(outcome: Outcome) -> float:
    """When its only token came; a half character is told by the stream's end alone."""
    return outcome.chunk_s[0] if outcome.chunk_s else outcome.end_s


def run(target: Target, load: StallLoad) -> dict[str, Any]:
    """`measure` for callers without an event loop."""
    return asyncio.run(measure(target, load))
