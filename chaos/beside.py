"""Healthy streams beside a corpus of hostile requests, and beside as many harmless ones.

    python -m chaos.beside                            2,000 requests, 100 a second
    python -m chaos.beside --requests 100000          the whole
    python -m chaos.beside --corpus FILE --save DIR   one that was made before; what went wrong is kept in DIR

A real server with the bundled model; the streams' bytes are compared with an undisturbed run of the same requests. The
sender is niced, and takes turns: so many seconds of the corpus, so many of GET /livez at the same rate. So the figures
that are compared come from the same minutes of the same machine. What went wrong can be sent again:
`python -m chaos.sender PORT DIR/findings.jsonl --all`.

Knows: turns, verdicts, figures. Does not know: what is hostile.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

from chaos import corpus, entry
from chaos.healthy import Streams, asks
from chaos.http_text import HEALTHY_KEY, NUM_STRANGERS, get, stranger
from chaos.sender import SLOW_S, Order, Outcome, exchange
from chaos.served import Served, end_in_order, is_alive, served
from quire.cli.bench.figures import spread

TARGET = 1.3
SETTLE_S = 0.5  # at a change of turns, which neither side is charged for
ANSWER_BYTES = 2**26


@dataclass(slots=True)
class Turn:
    """One stretch of time: [begin_s, end_s) of `time.perf_counter`, and what the sender saw in it."""

    hostile: bool
    begin_s: float
    end_s: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)


async def sender_of(port: int, path: Path) -> asyncio.subprocess.Process:
    """The sender's process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos.sender", str(port), str(path),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=ANSWER_BYTES,
    )  # fmt: skip


async def order(sender: asyncio.subprocess.Process, what: Order) -> list[Outcome]:
    """Give an order, and wait until it is done."""
    assert sender.stdin is not None
    assert sender.stdout is not None
    told = {"num": what.num, "rate": what.rate, "path": what.path}
    sender.stdin.write((json.dumps(told) + "\n").encode())
    line = await sender.stdout.readline()
    return [Outcome(**each) for each in json.loads(line)]


async def observe(server: Served, path: Path, num: int, args: argparse.Namespace) -> tuple[Streams, list[Turn]]:
    """Learn what the streams say alone, then take turns until all of the corpus has been sent."""
    streams = Streams(server.port, asks(2 * args.streams, args.tokens), args.streams)
    asked = entry.Entry("", (get(args.harmless, key=None),), ("200",))
    if (found := (await exchange(server.port, asked))[0]) != "200":
        raise SystemExit(f"GET {args.harmless} without a key: {found}; another is chosen with --harmless")
    await streams.learn()
    streams.start()
    sender = await sender_of(server.port, path)
    turns: list[Turn] = []
    try:
        each = max(1, round(args.turn * args.rate))
        bare = max(1, round(each * args.undisturbed))
        left = num
        while left > 0:
            for hostile in (False, True):
                what = Order(min(each, left), args.rate) if hostile else Order(bare, args.rate, args.harmless)
                turn = Turn(hostile, time.perf_counter() + SETTLE_S)
                turn.outcomes = await order(sender, what)
                turn.end_s = time.perf_counter()
                turns.append(turn)
            left -= each
            _progress(num - max(0, left), num, turns, streams)
    finally:
        if sender.stdin is not None:
            sender.stdin.close()
        await sender.wait()
        await streams.stop()
    return streams, turns


def _progress(done: int, num: int, turns: Sequence[Turn], streams: Streams) -> None:
    wrong = sum(not each.is_right for turn in turns for each in turn.outcomes)
    said = (
        f"{done} of {num} sent, {wrong} answered wrongly, {len(streams.harmed)} of {streams.num_heard} streams harmed"
    )
    print(said, file=sys.stderr, flush=True)


def gaps_in(streams: Streams, turns: Sequence[Turn], hostile: bool) -> list[float]:
    """The streams' times between tokens that ended in turns of one kind."""
    begins = [turn.begin_s for turn in turns]
    found = []
    for end_s, gap_s in zip(streams.gap_ends_s, streams.gaps_s, strict=True):
        place = bisect_right(begins, end_s) - 1
        if place >= 0 and turns[place].hostile == hostile and end_s < turns[place].end_s:
            found.append(gap_s)
    return found


def report(streams: Streams, turns: Sequence[Turn], before: dict[str, int | None], server: Served) -> dict[str, Any]:
    """All figures, and what each promise came to."""
    hostile = [each for turn in turns if turn.hostile for each in turn.outcomes]
    harmless = [each for turn in turns if not turn.hostile for each in turn.outcomes]
    alone, beside = spread(gaps_in(streams, turns, False)), spread(gaps_in(streams, turns, True))
    ratio = None if not alone or not beside else round(beside["p99"] / alone["p99"], 3)
    exits = [name for name in ("front", "engine") if not is_alive(before[name]) or server.pids[name] != before[name]]
    fives = [each for each in hostile if each.outcome.startswith("5")]
    kinds: dict[str, Counter[str]] = {}
    for each in hostile:
        kinds.setdefault(corpus.family(each.kind), Counter())[each.outcome] += 1
    return {
        "requests": len(hostile),
        "harmless_requests": len(harmless),
        "harmless_failed": sum(not each.is_right for each in harmless),
        "exits": exits,
        "grammar_process_anew": server.pids["grammars"] != before["grammars"],
        "healthy": streams.num_heard,
        "harmed": [{"name": each.name, "failure": each.failure} for each in streams.harmed],
        "inter_token_s": beside,
        "undisturbed_inter_token_s": alone,
        "p99_ratio": ratio,
        "statuses": dict(Counter(each.outcome for each in hostile).most_common()),
        "by_kind": {name: dict(found.most_common()) for name, found in sorted(kinds.items())},
        "answered_share": round(sum(each.outcome == "200" for each in hostile) / max(1, len(hostile)), 3),
        "server_errors": [[each.number, each.kind, each.outcome] for each in fives],
        "wrong": [[each.number, each.kind, each.outcome] for each in hostile if not each.is_right],
        "slow": [[each.number, each.kind, each.outcome, each.seconds] for each in hostile if each.seconds > SLOW_S],
        "late_s": spread(each.late_s for each in hostile),
        "promises": {
            "process exits 0": not exits,
            "healthy requests failed or changed 0": not streams.harmed,
            f"healthy p99 between tokens at most {TARGET} times undisturbed": ratio is not None and ratio <= TARGET,
            "no answer of 500 or above": not fives,
        },
    }


def keep(folder: Path, told: dict[str, Any], path: Path, streams: Streams) -> None:
    """Write what went wrong where it can be looked at and sent again."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {each[0] for name in ("server_errors", "wrong", "slow") for each in told[name]}
    entry.write(folder / "findings.jsonl", [each for place, each in enumerate(entry.read(path)) if place in numbers])
    for place, heard in enumerate(streams.harmed[:50]):
        (folder / f"harmed-{place}.txt").write_bytes(
            f"{heard.name}: {heard.failure}\n".encode()
            + heard.said
            + b"\n--- undisturbed\n"
            + streams.golden[heard.name]
        )


def show(told: dict[str, Any]) -> None:
    """For people."""
    for name in ("undisturbed_inter_token_s", "inter_token_s"):
        figures = told[name] or {}
        print(f"{name:26} " + "  ".join(f"{key} {1000 * value:.2f} ms" for key, value in figures.items()))
    print(f"{'statuses':26} " + ", ".join(f"{name} {num}" for name, num in told["statuses"].items()))
    for name, found in told["by_kind"].items():
        print(f"  {name:24} " + ", ".join(f"{status} {num}" for status, num in found.items()))
    print(f"{'computed an answer':26} {told['answered_share']:.1%} of the hostile requests")
    for name in ("server_errors", "wrong", "slow"):
        print(f"{name:26} {len(told[name])}" + "".join(f"\n    {each}" for each in told[name][:20]))
    print(f"{'healthy streams':26} {told['healthy']} heard, {len(told['harmed'])} harmed {told['harmed'][:5] or ''}")
    print(f"{'grammar process':26} {'started anew' if told['grammar_process_anew'] else 'the same throughout'}")
    print(f"{'p99 ratio':26} {told['p99_ratio']}")
    for promise, is_met in told["promises"].items():
        print(f"{'met   ' if is_met else 'MISSED'} {promise}")


def keys_file(folder: Path) -> Path:
    """A file of keys: one for the healthy, one for each stranger."""
    keys = {"healthy": HEALTHY_KEY} | {f"stranger-{number:02}": stranger(number) for number in range(NUM_STRANGERS)}
    path = folder / "keys.toml"
    lines = [f'[keys.{name}]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n' for name, key in keys.items()]
    path.write_text("".join(lines), encoding="utf-8")
    path.chmod(0o600)
    return path


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos.beside", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000, help="Hostile requests in all.")
    parser.add_argument("--rate", type=float, default=100.0, help="Of them, a second.")
    parser.add_argument("--streams", type=int, default=32, help="Healthy streams at any time.")
    parser.add_argument("--tokens", type=int, default=200, help="Of each healthy answer.")
    parser.add_argument(
        "--turn", type=float, default=5.0, help="Seconds of hostile requests before it is the others' turn."
    )
    parser.add_argument(
        "--undisturbed", type=float, default=0.5, help="Length of the others' turns, as a share of those."
    )
    parser.add_argument("--harmless", default="/livez", help="What is asked for undisturbed.")
    parser.add_argument("--seed", type=int, default=1, help="Where the corpus comes from.")
    parser.add_argument("--corpus", type=Path, help="A corpus made before, in place of a new one.")
    parser.add_argument("--save", type=Path, default=Path("build/chaos"), help="Where what went wrong is kept.")
    parser.add_argument("--json", action="store_true", help="One JSON object on stdout.")
    parser.add_argument("options", nargs="*", help="After --: options of `quire serve`.")
    return parser.parse_args()


def main() -> int:
    """1 if a promise was not kept."""
    end_in_order()
    args = parsed()
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        path = args.corpus or Path(name) / "corpus.jsonl"
        if args.corpus is None:
            entry.write(path, corpus.entries(args.requests, args.seed))
        num = sum(1 for _ in islice(path.open("rb"), args.requests))
        with served("--api-keys", str(keys_file(Path(name))), "--log-level", "critical", *args.options) as server:
            before = server.pids
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                streams, turns = runner.run(observe(server, path, num, args))
            told = report(streams, turns, before, server)
        if told["wrong"] or told["slow"] or told["harmed"]:
            keep(args.save, told, path, streams)
    print(json.dumps(told)) if args.json else show(told)
    return int(not all(told["promises"].values()))


if __name__ == "__main__":
    sys.exit(main())
