"""What a server gives when far more is asked than it can: saturation first, then a multiple of it with a deadline.

Knows: when what is sent, and what each figure means. Does not know: HTTP (`lean_client.py`), or which server it is.

    saturation   |-- until it is full --|-- answers a second --|  nobody is in a hurry; all connections end
    overload                                                                |---- times that, each with a deadline ----|
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import httpx

from quire.cli.bench import open_loop
from quire.cli.bench.figures import significant
from quire.cli.bench.http_client import Outcome, Target
from quire.cli.bench.lean_client import LeanClient
from quire.cli.bench.serve import introduce
from quire.cli.bench.workload import Ask, Sizes, TextMaker, made_up
from quire.errors import InvalidSetting, StartError

LEAD_SHARE = 0.25  # of the time for saturation: not measured in any case, and measured at least
FULL_SHARE = 0.9  # of the most that were ever under way
LEAST_ENDS = 10  # answers that saturation is told from
REST_S = 3.0
LOOK_S = 5.0
ERRORS = {"step": "step_prediction_error_ratio", "ttft": "time_to_first_token_prediction_error_ratio"}


@dataclass(frozen=True, slots=True)
class OverloadLoad:
    """`times` what the server can do, for `seconds`; `rate` is enough to saturate it. `pid` is the server's process."""

    rate: float
    deadline_ms: float = 2000.0
    times: float = 4.0
    sizes: Sizes = field(default_factory=lambda: Sizes(512, 32))
    seconds: float = 300.0
    saturation_seconds: float = 40.0
    pid: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse a load that cannot be meant."""
        numbers = {"rate": self.rate, "times": self.times, "seconds": self.seconds, "deadline-ms": self.deadline_ms}
        for name, value in (numbers | {"saturation-seconds": self.saturation_seconds}).items():
            if not 0 < value < inf:
                raise InvalidSetting(f"--{name} is out of range", got=value, allowed="a number above 0")


def run(target: Target, load: OverloadLoad) -> dict[str, Any]:
    """Run `load` against `target`. Raises `StartError` where the server cannot be asked at all."""
    load.check()
    return asyncio.run(_run(target, load))


async def _run(target: Target, load: OverloadLoad) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
        target, text = await introduce(client, target)
        saturation = await _saturation(target, load, text)
        await asyncio.sleep(REST_S)
        before = await _metrics(client, target)
        memory: list[int] = []
        looking = asyncio.create_task(_look(load.pid, memory))
        outcomes = await _overload(target, load, text, load.times * saturation)
        looking.cancel()
        after = await _metrics(client, target)
    figures = open_loop.report(outcomes, load.deadline_ms / 1000)
    errors = {f"{name}_prediction_error": prediction_errors(family, before, after) for name, family in ERRORS.items()}
    return {
        "url": target.url,
        "saturation_requests_per_s": significant(saturation),
        **verdict(figures, saturation, load.deadline_ms / 1000),
        **figures,
        **errors,
        "memory_bytes": {"first": memory[0], "max": max(memory), "last": memory[-1]} if memory else None,
    }


def verdict(figures: dict[str, Any], saturation: float, deadline_s: float) -> dict[str, Any]:
    """Goodput in the time in which requests were sent beside saturation, and whether 99 of 100 of
    those let in had their first token in time."""
    sent_s = figures["requests"] / max(1e-9, figures["offered_requests_per_s"] or inf)
    goodput = figures["goodput_requests_per_s"] * figures["seconds"] / max(1e-9, sent_s)
    first = figures["ttft_s"]
    return {
        "goodput_share": significant(goodput / saturation) if saturation else None,
        "met": None if first is None else first["p99"] <= deadline_s,
    }


async def _saturation(target: Target, load: OverloadLoad, text: TextMaker) -> float:
    """Answers a second while more is asked than can be done."""
    client, seen = LeanClient(target), []
    number = round(load.rate * load.saturation_seconds)

    async def send(ask: Ask, start: float) -> Outcome:
        seen.append(outcome := Outcome(ask.at_s))
        return await client.send(ask, start, outcome)

    begin = time.perf_counter()
    asks = made_up(Random(load.seed), number, load.rate, load.sizes, text)
    sending = asyncio.create_task(open_loop.run(asks, send))
    await asyncio.sleep(load.saturation_seconds)
    end_s = time.perf_counter() - begin
    answers = [(each.chunk_s[0], each.end_s or inf) for each in seen if each.chunk_s and each.failure is None]
    client.close()
    sending.cancel()
    return full_rate(answers, end_s)


def full_rate(answers: Sequence[tuple[float, float]], end_s: float) -> float:
    """Answers a second, until `end_s`, of a server that was empty at 0 and has been asked for too much since.

    `answers` are (first text, end) in seconds, infinity for what has not ended. While a server fills, less ends than
    begins; so it is measured from when nearly as many were under way as ever were. Raises `StartError` where too
    little time is left then.
    """
    moves = sorted((at_s, change) for begin, end in answers for at_s, change in ((begin, 1), (end, -1)) if at_s < end_s)
    under_way = list(accumulate(change for _, change in moves))
    nearly = FULL_SHARE * max(under_way, default=0)
    full_s = next((at_s for (at_s, _), count in zip(moves, under_way, strict=True) if count >= nearly), end_s)
    begin_s = max(LEAD_SHARE * end_s, full_s)
    count = sum(begin_s <= end < end_s for _, end in answers)
    if count < LEAST_ENDS or end_s - begin_s < LEAD_SHARE * end_s:
        raise StartError(
            "the server was not full for long enough to tell what it can do",
            got=f"{count} answers in the last {end_s - begin_s:.1f} of {end_s:.1f} s",
            allowed=f"{LEAST_ENDS} answers or more, in a quarter of the time or more",
            hint="Try a longer --saturation-seconds, or a higher --rate.",
        )
    return count / (end_s - begin_s)


async def _overload(target: Target, load: OverloadLoad, text: TextMaker, rate: float) -> list[Outcome]:
    client = LeanClient(replace(target, deadline_ms=load.deadline_ms))
    asks = made_up(Random(load.seed + 1), max(1, round(rate * load.seconds)), max(rate, 1e-3), load.sizes, text)
    outcomes = await open_loop.run(asks, client.send)
    client.close()
    return outcomes


async def _metrics(client: httpx.AsyncClient, target: Target) -> str:
    """The server's /metrics, "" where it has none."""
    try:
        response = await client.get(f"{target.base.removesuffix('/v1')}/metrics", headers=target.headers)
    except httpx.HTTPError:
        return ""
    return response.text if response.status_code == 200 else ""


def prediction_errors(family: str, before: str, after: str) -> dict[str, float] | None:
    """p50, p90 and p99 of what was added to a Prometheus histogram, interpolated within buckets; None of nothing."""
    old, new = dict(_buckets(family, before)), _buckets(family, after)
    added = [(edge, count - old.get(edge, 0.0)) for edge, count in new]
    if not added or not added[-1][1]:
        return None
    found = {}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        wanted, low, below = share * added[-1][1], 0.0, 0.0
        for edge, count in added:
            if count >= wanted:
                high = low if edge == inf else edge
                found[name] = significant(low + (high - low) * (wanted - below) / max(1.0, count - below))
                break
            low, below = edge, count
    return found


def _buckets(family: str, text: str) -> list[tuple[float, float]]:
    lines = re.finditer(rf'{family}_bucket{{le="([^"]+)"}} (\S+)', text)
    return [(float(line.group(1).replace("+Inf", "inf")), float(line.group(2))) for line in lines]


async def _look(pid: int | None, found: list[int]) -> None:
    """Resident bytes of process `pid` and its children, every few seconds."""
    while pid is not None:
        found.append(sum(resident_bytes(each) for each in [pid, *children(pid)]))
        await asyncio.sleep(LOOK_S)


def children(pid: int) -> Iterable[int]:
    """Children of the main thread of `pid`, as Linux tells them."""
    return [int(each) for each in _read(f"/proc/{pid}/task/{pid}/children", str.split)]


def resident_bytes(pid: int) -> int:
    """Memory that process `pid` holds now; 0 of one that has gone."""
    kilobytes = _read(f"/proc/{pid}/status", lambda text: re.findall(r"VmRSS:\s+(\d+)", text))
    return 1024 * int(kilobytes[0]) if kilobytes else 0


def _read(path: str, parse: Callable[[str], list[str]]) -> list[str]:
    try:
        return parse(Path(path).read_text(encoding="ascii"))
    except OSError:
        return []
