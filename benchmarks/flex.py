"""What the flex lane gets of a real server's idle capacity, and what those online feel of it.

    python benchmarks/flex.py [MODEL] [--rounds 6] [--turn-seconds 20] [--load 0.4] [--json FILE]

    round     |- full: a batch, as large as it takes -|- online alone -|- online, and the batch in the flex lane -|

Those online stream, and come in an open loop at `--load` of the answers a second of a full turn before the first round;
the same ones in both turns of a round. Answers of the batch are whole ones, of half to one and a half the length: as
many at once as `--flex` says, each followed by another one. In the full turns they are ordinary requests.

    idle by tokens  output tokens a second when full, less those of online users beside the flex lane
    idle by time    the same tokens times the share of time in which nobody online waits for anything
    p99             over all turns: due to first token, and between pieces of text; a host that stalls for a moment in
                    one turn moves it, and hardly the median of the rounds that stands beside it

They are not the same: rows beside others cost little, so a machine that is never idle still has room for more tokens.
Whoever takes all of that makes every step of those online longer, though perhaps none longer than their longest: their
answers as a whole show it (`e2e`). Idle by time can be taken without that.

Knows: loads, turns, figures. Does not know: how the lanes share a step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any
from urllib.parse import urlsplit

import httpx
from live_server import live_server

from quire.cli.bench import open_loop
from quire.cli.bench.figures import percentile, significant, spread
from quire.cli.bench.http_client import Outcome, Target
from quire.cli.bench.lean_client import LeanClient
from quire.cli.bench.serve import introduce
from quire.cli.bench.workload import Ask, Sizes, TextMaker, made_up

LEAD_SHARE = 0.15  # of a turn: until the house is as full as it gets
REST_S = 0.5
LEAST_SHARE, MOST_GROWTH = 0.9, 0.05


@dataclass(slots=True)
class Turn:
    """What was seen between `begin_s` and `end_s` of a turn's clock."""

    begin_s: float
    end_s: float
    online: list[Outcome] = field(default_factory=list)
    batch: list[Outcome] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The window's length."""
        return self.end_s - self.begin_s

    @property
    def online_rate(self) -> float:
        """Output tokens a second of those online."""
        return sum(self._is_in(at_s) for each in self.online for at_s in each.chunk_s) / self.seconds

    @property
    def batch_rate(self) -> float:
        """Output tokens a second of whole answers, as if each had come evenly between question and answer."""
        return sum(each.num_output_tokens * self._share(each) for each in self.batch) / self.seconds

    @property
    def answers_rate(self) -> float:
        """The same in answers."""
        return sum(self._share(each) for each in self.batch if each.num_output_tokens) / self.seconds

    @property
    def ttft_s(self) -> list[float]:
        """Due to first text of those who were due in the window."""
        return [each.ttft_s for each in self.online if self._is_in(each.due_s) and each.ttft_s is not None]

    @property
    def gaps_s(self) -> list[float]:
        """Between pieces of text of the same."""
        return [gap for each in self.online if self._is_in(each.due_s) for gap in each.gaps_s]

    @property
    def e2e_s(self) -> list[float]:
        """Due to last text of the same."""
        return [each.end_s - each.due_s for each in self.online if self._is_in(each.due_s) and each.chunk_s]

    @property
    def idle_share(self) -> float:
        """Share of the window in which nobody online waited for anything."""
        busy_s, until = 0.0, self.begin_s
        for each in sorted(self.online, key=lambda each: each.sent_s):
            end_s = min(each.end_s or self.end_s, self.end_s)
            if end_s > until:
                busy_s += end_s - max(each.sent_s, until)
                until = end_s
        return 1.0 - busy_s / (self.end_s - self.begin_s)

    def failures(self) -> list[str]:
        """Of those online and of the batch."""
        return [each.failure for each in (*self.online, *self.batch) if each.failure]

    def _share(self, each: Outcome) -> float:
        """Share of an answer's time that lies in the window."""
        seconds = min(each.end_s, self.end_s) - max(each.sent_s, self.begin_s)
        return max(0.0, seconds) / (each.end_s - each.sent_s) if each.end_s > each.sent_s else 0.0

    def _is_in(self, at_s: float) -> bool:
        return self.begin_s <= at_s < self.end_s


@dataclass(frozen=True, slots=True)
class Load:
    """`num_flex` batch answers at once, `rate` a second online, for `seconds` a turn."""

    target: Target
    text: TextMaker
    sizes: Sizes
    seconds: float
    num_flex: int


async def turn(load: Load, seed: int, rate: float, tier: str | None) -> Turn:
    """One turn: those online by `rate` (0: nobody), beside a batch in this service tier (None: no batch)."""
    found = Turn(LEAD_SHARE * load.seconds, load.seconds)
    start, online, tasks = time.perf_counter(), LeanClient(load.target), []
    if tier is not None:
        target = replace(load.target, service_tier=tier)
        tasks = [asyncio.create_task(_batch(load, target, f"{seed} {i}", start, found)) for i in range(load.num_flex)]
    if rate:
        asks = made_up(Random(f"online {seed}"), round(2 * rate * load.seconds), rate, load.sizes, load.text)
        found.online = await open_loop.run([each for each in asks if each.at_s < load.seconds], online.send)
    await asyncio.sleep(max(0.0, start + load.seconds - time.perf_counter()))
    await asyncio.gather(*tasks)
    online.close()
    await asyncio.sleep(REST_S)
    return found


async def _batch(load: Load, target: Target, seed: str, start: float, told: Turn) -> None:
    """One whole answer after the other, over one connection; none is begun after the turn's end, and all are told: what
    is under way then was computed before, too."""
    rng, parts = Random(f"batch {seed}"), urlsplit(target.path)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    size = load.sizes.output_tokens
    try:
        while time.perf_counter() - start < load.seconds:
            ask = Ask(0.0, load.text.words(rng, load.sizes.input_tokens), rng.randint(size // 2, size + size // 2))
            asked = {name: value for name, value in target.body(ask).items() if name != "stream_options"}
            body = json.dumps(asked | {"stream": False}).encode()
            outcome = Outcome(0.0, time.perf_counter() - start)
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ?(\d+)", answer, re.IGNORECASE)
            text = await reader.readexactly(int(length.group(1)) if length else 0)
            outcome.end_s = time.perf_counter() - start
            if answer.split(b" ", 2)[1] == b"200":
                outcome.num_output_tokens = json.loads(text)["usage"]["completion_tokens"]
            else:
                outcome.failure = text[:200].decode(errors="replace")
                await asyncio.sleep(0.05)
            told.batch.append(outcome)
    finally:
        writer.close()


def report(full: Sequence[Turn], alone: Sequence[Turn], beside: Sequence[Turn]) -> dict[str, Any]:
    """All figures, and what is met of the two wishes."""
    full_rate, flex_rate = fmean(each.batch_rate for each in full), fmean(each.batch_rate for each in beside)
    by_tokens = full_rate - fmean(each.online_rate for each in beside)
    by_time = full_rate * fmean(each.idle_share for each in alone)
    ttft, gaps = _growth(alone, beside, "ttft_s"), _growth(alone, beside, "gaps_s")
    shares = {
        name: significant(flex_rate / idle) if idle > 0 else None
        for name, idle in (("by_time", by_time), ("by_tokens", by_tokens))
    }
    return {
        "full_tokens_per_s": significant(full_rate),
        "online_tokens_per_s": {
            "alone": significant(fmean(each.online_rate for each in alone)),
            "beside": significant(fmean(each.online_rate for each in beside)),
        },
        "flex_tokens_per_s": significant(flex_rate),
        "idle_tokens_per_s": {"by_tokens": significant(by_tokens), "by_time": significant(by_time)},
        "idle_share": significant(fmean(each.idle_share for each in alone)),
        "flex_share_of_idle": shares,
        "ttft_s": ttft,
        "inter_token_s": gaps,
        "e2e_s": _growth(alone, beside, "e2e_s"),
        "failures": [failure for each in (*full, *alone, *beside) for failure in each.failures()],
        "met": {
            **{f"flex_share_of_idle_{name}": (share or 0.0) >= LEAST_SHARE for name, share in shares.items()},
            "ttft_p99": ttft["p99_growth"] <= MOST_GROWTH,
            "inter_token_p99": gaps["p99_growth"] <= MOST_GROWTH,
        },
    }


def _growth(alone: Sequence[Turn], beside: Sequence[Turn], name: str) -> dict[str, Any]:
    """Both spreads and how far the second's percentiles lie above the first's; by round, to show how sure that is."""
    before = sorted(value for each in alone for value in getattr(each, name))
    after = sorted(value for each in beside for value in getattr(each, name))
    by_round = [
        percentile(sorted(getattr(more, name)), 0.99) / percentile(sorted(getattr(less, name)), 0.99) - 1.0
        for less, more in zip(alone, beside, strict=True)
        if getattr(less, name) and getattr(more, name)
    ]
    return {
        "count": [len(before), len(after)],
        "alone": spread(before),
        "beside": spread(after),
        "p50_growth": significant(percentile(after, 0.5) / percentile(before, 0.5) - 1.0),
        "p99_growth": significant(percentile(after, 0.99) / percentile(before, 0.99) - 1.0),
        "p99_growth_by_round": [significant(each, 3) for each in by_round],
    }


def tell(found: dict[str, Any]) -> str:
    """The table's lines."""
    met, idle, share = found["met"], found["idle_tokens_per_s"], found["flex_share_of_idle"]
    lines = [
        f"full {found['full_tokens_per_s']:.0f} tokens/s; online {found['online_tokens_per_s']['alone']:.0f} alone, "
        f"{found['online_tokens_per_s']['beside']:.0f} beside flex; flex {found['flex_tokens_per_s']:.0f}",
        *[
            f"idle {name.replace('_', ' '):9} {idle[name]:6.0f} tokens/s: {_percent(share[name])} of it taken, wanted "
            f"{100 * LEAST_SHARE:.0f} %: {_verdict(met[f'flex_share_of_idle_{name}'])}"
            for name in ("by_time", "by_tokens")
        ],
    ]
    for name, label in (("ttft", "first token"), ("inter_token", "between tokens")):
        each = found[f"{name}_s"]
        lines.append(
            f"{label:15} p99 {1e3 * each['alone']['p99']:8.2f} -> {1e3 * each['beside']['p99']:8.2f} ms, "
            f"{100 * each['p99_growth']:+.1f} %, allowed +{100 * MOST_GROWTH:.0f} %: {_verdict(met[f'{name}_p99'])}   "
            f"(median of rounds {100 * median(each['p99_growth_by_round'] or [nan]):+.1f} %, "
            f"p50 {1e3 * each['alone']['p50']:.2f} -> {1e3 * each['beside']['p50']:.2f}, of {each['count'][0]})"
        )
    whole = found["e2e_s"]
    lines.append(f"whole answers   p50 {100 * whole['p50_growth']:+.1f} %, p99 {100 * whole['p99_growth']:+.1f} %")
    if found["failures"]:
        lines.append(f"FAILED: {len(found['failures'])}, {sorted(set(found['failures']))}")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


async def measure(base: str, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds against the server at `base`."""
    target = Target(base, "", ignore_eos=True)
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
        target, text = await introduce(client, target)
    sizes = Sizes(options.input_tokens, options.output_tokens)
    load = Load(target, text, sizes, options.turn_seconds, options.flex)
    first = await turn(load, -1, 0.0, "default")
    rate = options.load * first.answers_rate
    full, alone, beside = [], [], []
    for seed in range(options.rounds):
        full.append(await turn(load, seed, 0.0, "default"))
        pair = [False, True] if seed % 2 == 0 else [True, False]
        for with_flex in pair:
            (beside if with_flex else alone).append(await turn(load, seed, rate, "flex" if with_flex else None))
    return {"online_requests_per_s": significant(rate), **report(full, alone, beside)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: the bundled one")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--turn-seconds", type=float, default=5.0)
    parser.add_argument("--load", type=float, default=0.4, help="of the answers a second when full")
    parser.add_argument("--flex", type=int, default=32, help="batch answers asked for at once")
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", default="", help="more options of quire serve, as one word")
    options = parser.parse_args()
    with live_server(options.model, "--log-level", "warning", *options.serve.split()) as server:
        found = asyncio.run(measure(server.url, options))
    print(tell(found), flush=True)
    if options.json is not None:
        asked = {name: value for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({"asked": asked, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
