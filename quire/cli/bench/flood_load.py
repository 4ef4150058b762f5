"""One tenant who asks once in a while, alone and beside another who floods the same server, and what both were given.

Knows: when what is sent, and what each figure means. Does not know: HTTP (`lean_client.py`), or which server it is.

    quiet     |--- alone ---|              |--- beside the flood: the window ---|
    flood                   |-- lead_s ----|------------------------------------|

`late_s` says how late this client itself was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from random import Random
from typing import Any

import httpx

from quire.cli.bench import open_loop
from quire.cli.bench.figures import significant, spread
from quire.cli.bench.http_client import Outcome, Target
from quire.cli.bench.lean_client import LeanClient
from quire.cli.bench.serve import introduce
from quire.cli.bench.workload import Ask, Sizes, TextMaker, made_up
from quire.errors import InvalidSetting

LEAD_S = 5.0  # of the flood, before the window
QUIET, FLOOD = "quiet", "flood"  # the two tenants' names

Seen = tuple[list[Outcome], list[Outcome], list[Outcome], float]  # alone, beside the flood, the flood, its lead


@dataclass(frozen=True, slots=True)
class FloodLoad:
    """`rate` requests a second of the quiet tenant, evenly, and `flood_rate` of the other, at random times."""

    rate: float = 1.0
    flood_rate: float = 100.0
    sizes: Sizes = field(default_factory=lambda: Sizes(256, 64))
    seconds: float = 60.0
    alone_seconds: float = 60.0
    seed: int = 0

    def check(self) -> None:
        """Refuse a load that cannot be meant."""
        for name, value in {"rate": self.rate, "flood-rate": self.flood_rate, "seconds": self.seconds}.items():
            if not 0 < value < inf:
                raise InvalidSetting(f"--{name} is out of range", got=value, allowed="a number above 0")
        if not 0 <= self.alone_seconds < inf:
            raise InvalidSetting("--alone-seconds is out of range", got=self.alone_seconds, allowed="0 or more")


def run(target: Target, load: FloodLoad) -> dict[str, Any]:
    """Run `load` against `target`. Raises `StartError` where the server cannot be asked at all."""
    load.check()
    target, text = asyncio.run(_introduce(target))
    quiet, flood = replace(target, user=QUIET), replace(target, user=FLOOD)
    alone, beside, flooded, begin_s = asyncio.run(_observe(quiet, flood, load, text))
    settings = {"url": target.url, "model": target.model, "rate": load.rate, "flood_rate": load.flood_rate}
    return settings | report(alone, beside, flooded, begin_s, begin_s + load.seconds)


def report(
    alone: Sequence[Outcome], beside: Sequence[Outcome], flooded: Sequence[Outcome], begin_s: float, end_s: float
) -> dict[str, Any]:
    """The figures; times of `flooded` are seconds since the flood began, and the window is [begin_s, end_s) of it.

    ttft_s: from when a request was due. flood_inter_token_s: between tokens of the flood's answers, which is a step as
    a client sees it. bound_s: 1.5 times the first's 99th percentile and two of the second's: what the quiet tenant's
    is held against. answers_per_s and output_tokens_per_s: of both tenants, in the window.
    """
    gaps = [
        later - earlier for each in flooded for earlier, later in pairwise(each.chunk_s) if begin_s <= later < end_s
    ]
    steps, solo = spread(gaps), spread(_first_tokens(alone))
    found = spread(_first_tokens(beside))
    bound_s = significant(1.5 * solo["p99"] + 2 * steps["p99"]) if solo and steps else None
    num_tokens = sum(begin_s <= at_s < end_s for each in flooded for at_s in each.chunk_s)
    num_tokens += sum(len(each.chunk_s) for each in beside)
    num_answers = sum(each.failure is None and begin_s <= each.end_s < end_s for each in flooded)
    num_answers += sum(each.failure is None for each in beside)
    return {
        "alone_ttft_s": solo,
        "ttft_s": found,
        "bound_s": bound_s,
        "met": None if bound_s is None or found is None else found["p99"] <= bound_s,
        "inter_token_s": spread(gap for each in beside for gap in each.gaps_s),
        "flood_inter_token_s": steps,
        "answers_per_s": significant(num_answers / (end_s - begin_s)),
        "output_tokens_per_s": significant(num_tokens / (end_s - begin_s)),
        "late_s": spread(each.sent_s - each.due_s for each in beside),
        "flood_late_s": spread(each.sent_s - each.due_s for each in flooded),
        "failures": dict(Counter(each.failure for each in [*alone, *beside] if each.failure)),
        "flood_failures": dict(Counter(each.failure for each in flooded if each.failure)),
    }


def _first_tokens(outcomes: Sequence[Outcome]) -> list[float]:
    return [each.ttft_s for each in outcomes if each.ttft_s is not None]


async def _introduce(target: Target) -> tuple[Target, TextMaker]:
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
        return await introduce(client, target)


def _evenly(load: FloodLoad, text: TextMaker, seconds: float, seed: int) -> list[Ask]:
    rng, sizes = Random(seed), load.sizes
    number = max(1, round(seconds * load.rate))
    return [Ask(at / load.rate, text.words(rng, sizes.input_tokens), sizes.output_tokens) for at in range(number)]


def _flood(load: FloodLoad, text: TextMaker) -> list[Ask]:
    number = round(load.flood_rate * (load.seconds + 2 * LEAD_S))
    return made_up(Random(load.seed + 2), number, load.flood_rate, load.sizes, text)


async def _observe(quiet: Target, flood: Target, load: FloodLoad, text: TextMaker) -> Seen:
    """Send everything; the flood is left where it is once the quiet tenant has all its answers."""
    one, other = LeanClient(quiet), LeanClient(flood)
    alone: list[Outcome] = []
    if load.alone_seconds:
        alone = await open_loop.run(_evenly(load, text, load.alone_seconds, load.seed), one.send)
    flooded: list[Outcome] = []

    async def send(ask: Ask, start: float) -> Outcome:
        flooded.append(outcome := Outcome(ask.at_s))
        return await other.send(ask, start, outcome)

    begun = time.perf_counter()
    flooding = asyncio.create_task(open_loop.run(_flood(load, text), send))
    await asyncio.sleep(LEAD_S)
    begin_s = time.perf_counter() - begun
    beside = await open_loop.run(_evenly(load, text, load.seconds, load.seed + 1), one.send)
    flooding.cancel()
    one.close()
    other.close()
    return alone, beside, flooded, begin_s
