"""Minutes of everything at once, and whether anything grows.

    python -m chaos.soak                     two minutes
    python -m chaos.soak --minutes 15 --json

Streams whose bytes are compared, whole answers, several choices, log probabilities, beams, constrained answers with old
and new grammars, refusals, and clients that leave at any moment, all against one real server with the bundled model.
Every second: resident memory, descriptors and threads of each process, KV blocks, requests. Slopes are of the second
half (the median of all pairs' slopes, which a single garbage collection does not move). The KV cache is small, so that
all of it has been touched long before.

Knows: the load, the samples, the verdict. Does not know: what holds memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Any

import uvloop

from chaos import asking
from chaos.bodies import SCHEMA, text_of
from chaos.case import Failed, soon
from chaos.entry import ANSWERED, Entry
from chaos.healthy import Streams, asks
from chaos.http_text import CHAT, COMPLETIONS, get, post
from chaos.sender import exchange
from chaos.served import Served, end_in_order, footprint, served

KV_BYTES = 48 * 2**20
GAUGES = {
    "kv_blocks_used": 'quire_kv_blocks{state="used"}',
    "requests_running": "quire_num_requests_running",
    "requests_waiting": "quire_num_requests_waiting",
}
OPTIONAL_GAUGES = {f"front_{kind}": f'quire_front_open{{kind="{kind}"}}' for kind in ("requests", "streams", "tasks")}
SHORT_S = 8 * 60.0  # of a second half; in less, noise hides what would be seen in more
MOST_BYTES_A_MINUTE = {False: 128 * 1024, True: 1024 * 1024}
"""Of each process; by whether the run is short."""
PATIENCE_S = 120.0  # a loaded machine is no finding
KEPT = 200  # samples that --json tells, about
PAIRS = 400  # samples of which all pairs are taken, at most
WHAT = ("resident_bytes", "num_descriptors", "num_threads")


@dataclass(slots=True)
class Sample:
    """Everything at one second."""

    at_s: float
    values: dict[str, float] = field(default_factory=dict)


def plain(rng: Random) -> Entry:
    """A whole answer, with this or that."""
    kinds: list[dict[str, object]] = [
        {}, {"n": 3}, {"logprobs": 5}, {"prompt_logprobs": 2}, {"echo": True}, {"best_of": 3},
    ]  # fmt: skip
    more = rng.choice(kinds)
    return Entry("whole", (post(COMPLETIONS, {"prompt": text_of(rng), "max_tokens": rng.randint(1, 60), **more}),))


def chat(rng: Random) -> Entry:
    """A streamed chat with log probabilities."""
    body = {"messages": [{"role": "user", "content": text_of(rng)}], "max_tokens": rng.randint(1, 60), "stream": True}
    return Entry("chat", (post(CHAT, {**body, "logprobs": True, "top_logprobs": rng.randint(0, 5)}),))


def beams(rng: Random) -> Entry:
    """A beam search."""
    body = {"prompt": text_of(rng), "use_beam_search": True, "n": rng.randint(2, 4), "max_tokens": rng.randint(2, 30)}
    return Entry("beams", (post(COMPLETIONS, body),))


def constrained(rng: Random) -> Entry:
    """An answer with a form; a fifth of the grammars were never seen before."""
    new = f"[a-z]{{1,{rng.randint(1, 10**6)}}}"
    form = rng.choice(
        ({"json": SCHEMA}, {"regex": "[0-9]{1,8}"}, {"choice": ["yes", "no"]}, {"json": SCHEMA}, {"regex": new})
    )
    return Entry(
        "constrained", (post(COMPLETIONS, {"prompt": text_of(rng), "max_tokens": 30, "structured_outputs": form}),)
    )


def refused(rng: Random) -> Entry:
    """A request that is wrong."""
    wrong: tuple[str, ...] = (
        post(COMPLETIONS, {"prompt": "x", "max_tokens": rng.choice((-1, 10**9))}), post(COMPLETIONS, '{"prompt": '),
        post(CHAT, {"messages": 5}), get("/nowhere"),
        post(COMPLETIONS, {"prompt": "x", "structured_outputs": {"regex": "("}}),
    )  # fmt: skip
    return Entry("refused", (rng.choice(wrong),), ("4xx",))


def left(rng: Random) -> Entry:
    """A long answer, left at some moment."""
    body = {
        "prompt": text_of(rng, 300),
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": rng.random() < 0.7,
        "n": rng.randint(1, 3),
    }
    return Entry("left", (post(COMPLETIONS, body),), ANSWERED, rng.choice((0.0, rng.random() * 0.05, rng.random())))


def small(rng: Random) -> Entry:
    """What costs little."""
    return Entry(
        "small", (rng.choice((get("/v1/models"), get("/health"), post("/tokenize", {"prompt": text_of(rng)}))),)
    )


KINDS: dict[Callable[[Random], Entry], int] = {
    plain: 4,
    chat: 4,
    beams: 1,
    constrained: 3,
    refused: 3,
    left: 4,
    small: 2,
}


async def work(port: int, rng: Random, until_s: float, found: Counter[str], wrong: list[str]) -> None:
    """One client that asks for one thing after another."""
    while time.monotonic() < until_s:
        entry = rng.choices(list(KINDS), list(KINDS.values()))[0](rng)
        outcome, _ = await exchange(port, entry, PATIENCE_S)
        found[f"{entry.kind} {outcome}"] += 1
        if not entry.accepts(outcome) and not (outcome == "429" and entry.kind == "constrained"):
            wrong.append(f"{entry.kind}: {outcome}")


def sample(server: Served, begin_s: float) -> Sample:
    """What there is now."""
    found = Sample(round(time.monotonic() - begin_s, 2))
    for name, pid in server.pids.items():
        held = footprint(pid)
        if held is not None:
            found.values |= {f"{name}.{what}": getattr(held, what) for what in WHAT}
    text = asking.text(server.port, "/metrics")
    for name, start in (GAUGES | OPTIONAL_GAUGES).items():
        for line in text.splitlines():
            if line.startswith(start):
                found.values[name] = float(line.rpartition(" ")[2])
                break
    return found


async def observe(server: Served, args: argparse.Namespace) -> dict[str, Any]:
    """Load, samples, and what is left at the end."""
    rng, begin_s = Random(args.seed), time.monotonic()
    until_s = begin_s + 60 * args.minutes
    streams = Streams(server.port, asks(2 * args.streams, 100, key=None), args.streams)
    await streams.learn()
    pids, found, wrong, samples = server.pids, Counter[str](), list[str](), list[Sample]()
    streams.start()
    clients = [
        asyncio.create_task(work(server.port, Random(rng.random()), until_s, found, wrong)) for _ in range(args.clients)
    ]
    while time.monotonic() < until_s:
        samples.append(await asyncio.to_thread(sample, server, begin_s))
        await asyncio.sleep(min(args.every, max(0.0, until_s - time.monotonic())))
    await asyncio.gather(*clients)
    await streams.stop()
    at_rest = await asyncio.to_thread(_at_rest, server, begin_s)
    return report(samples, at_rest, found, wrong, streams) | {"same_processes": server.pids == pids}


def _at_rest(server: Served, begin_s: float) -> Sample:
    """What is there once everything has gone, or has had ten seconds to go."""

    def is_empty() -> bool:
        return not any(sample(server, begin_s).values.get(name) for name in GAUGES)

    with contextlib.suppress(Failed):  # what is left is told by the sample
        soon(is_empty, 10.0, "everything is given back")
    return sample(server, begin_s)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes of all pairs (Theil and Sen); 0 of fewer than two points."""
    if len(points) > PAIRS:
        step = len(points) / PAIRS
        points = [points[int(place * step)] for place in range(PAIRS)]
    pairs = [
        (late[1] - early[1]) / (late[0] - early[0])
        for place, early in enumerate(points)
        for late in points[place + 1 :]
        if late[0] > early[0]
    ]
    return median(pairs) if pairs else 0.0


def report(
    samples: Sequence[Sample], at_rest: Sample, found: Counter[str], wrong: Sequence[str], streams: Streams
) -> dict[str, Any]:
    """Slopes a minute over the second half, and verdicts."""
    half = [each for each in samples if each.at_s >= samples[-1].at_s / 2] if samples else []
    span_s = half[-1].at_s - half[0].at_s if half else 0.0
    names = sorted({name for each in half for name in each.values})
    slopes = {
        name: round(60 * slope([(each.at_s, each.values[name]) for each in half if name in each.values]), 3)
        for name in names
    }
    most = MOST_BYTES_A_MINUTE[span_s < SHORT_S]
    grows = [name for name in names if name.endswith("resident_bytes") and slopes[name] > most]
    kept = [name for name in GAUGES if at_rest.values.get(name)]
    more = [
        name
        for name in names
        if name.endswith(("num_descriptors", "num_threads")) and at_rest.values.get(name, 0) > _early(samples, name)
    ]
    return {
        "seconds": samples[-1].at_s if samples else 0.0,
        "requests": sum(found.values()),
        "outcomes": dict(found.most_common()),
        "streams": streams.num_heard,
        "harmed": [f"{each.name}: {each.failure}" for each in streams.harmed],
        "wrong": list(wrong),
        "slopes_a_minute": slopes,
        "first": half[0].values if half else {},
        "last": half[-1].values if half else {},
        "at_rest": at_rest.values,
        "samples": [{"at_s": each.at_s, **each.values} for each in samples[:: max(1, len(samples) // KEPT)]],
        "promises": {
            f"resident memory grows by at most {most // 1024} KiB a minute in each process": not grows and bool(half),
            "KV blocks and requests are 0 at rest": not kept,
            "descriptors and threads at rest are no more than in the first half": not more,
            "no stream failed or changed": not streams.harmed,
            "every answer was right": not wrong,
        },
    }


def _early(samples: Sequence[Sample], name: str) -> float:
    """The most that there was in the first half."""
    return max([each.values[name] for each in samples[: len(samples) // 2 + 1] if name in each.values], default=0.0)


def show(told: dict[str, Any]) -> None:
    """For people."""
    print(f"{told['seconds']:.0f} s, {told['requests']} requests beside {told['streams']} streams")
    print("  " + ", ".join(f"{name} {num}" for name, num in told["outcomes"].items()))
    print(f"{'':34}{'half way':>12}{'at the end':>12}{'at rest':>12}{'a minute':>12}")
    for name, a_minute in told["slopes_a_minute"].items():
        unit, scale = (" MiB", 2**20) if name.endswith("bytes") else ("", 1)
        ends = "".join(f"{told[key].get(name, 0) / scale:>12.1f}" for key in ("first", "last", "at_rest"))
        print(f"{name + unit:34}{ends}{a_minute / scale:>+12.3f}")
    for problem in [*told["wrong"][:10], *told["harmed"][:10]]:
        print(f"  {problem}")
    for promise, is_met in told["promises"].items():
        print(f"{'met   ' if is_met else 'MISSED'} {promise}")


def main() -> int:
    """1 if a promise was not kept."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=12, help="Who ask for anything.")
    parser.add_argument("--streams", type=int, default=4, help="Streams whose bytes are compared.")
    parser.add_argument("--every", type=float, default=1.0, help="Seconds between samples.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="One JSON object on stdout.")
    parser.add_argument("options", nargs="*", help="After --: options of `quire serve`.")
    args = parser.parse_args()
    options = ("--kv-cache-memory-bytes", str(KV_BYTES), "--log-level", "error", *args.options)
    with served(*options) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(observe(server, args))
    told["promises"]["the same processes throughout"] = told["same_processes"]
    print(json.dumps(told)) if args.json else show(told)
    return int(not all(told["promises"].values()))


if __name__ == "__main__":
    sys.exit(main())
