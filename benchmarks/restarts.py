"""Rolling restarts under load: does a request fail, and is an answer another one?

    python benchmarks/restarts.py                          five restarts of the bundled model
    python benchmarks/restarts.py --restarts 20 --users 20 --json

A real `quire serve` gets SIGUSR2 again and again: it starts its successor, hands the listening socket down and leaves
when its answers are whole. Beside that users ask without a pause: on a new connection each time or on one that is kept,
streamed or whole, and some on a kept connection after a silence of up to `--silence` seconds, which is when a server
that leaves closes connections. Every answer is compared with the one that an undisturbed server gave before. A kept
connection is used again unless its end has been seen or announced; any other break is a failed request. Exit code 1 if
one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from live_server import LiveServer, live_server
from strict_client import Broken, Connection, request

WORDS = "the fox river walked under a bridge and said quietly that nobody had seen rain since spring began"
LEAVE_S = 120.0


@dataclass(frozen=True)
class User:
    """How somebody asks."""

    name: str
    is_kept: bool
    is_stream: bool
    silence_s: float


@dataclass
class Seen:
    """What came of all requests."""

    asked: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    num_different: int = 0


def users_of(args: argparse.Namespace) -> list[User]:
    kinds = [
        User("new connection, whole", False, False, 0.05),
        User("new connection, stream", False, True, 0.05),
        User("kept connection, whole", True, False, 0.05),
        User("kept connection, stream", True, True, 0.05),
        User("kept connection, silences", True, False, args.silence),
    ]
    return [kinds[number % len(kinds)] for number in range(args.users)]


def questions(args: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    rng = random.Random(args.seed)
    found: list[tuple[str, dict[str, Any]]] = []
    for number in range(args.questions):
        text = " ".join(rng.choice(WORDS.split()) for _ in range(rng.randint(3, 60)))
        body = {"max_tokens": rng.randint(5, args.tokens), "temperature": 1.0, "seed": number, "ignore_eos": True}
        if number % 2:
            found.append(("/v1/completions", {**body, "prompt": text, "n": rng.randint(1, 2)}))
        else:
            found.append(("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}))
    return found


def bytes_of(question: tuple[str, dict[str, Any]], is_stream: bool) -> bytes:
    path, body = question
    return request(path, json.dumps({**body, "stream": is_stream}).encode())


async def ask_for_ever(
    user: User, server: LiveServer, asked: list[tuple[str, dict[str, Any]]], expected: list[Any], seen: Seen, seed: int
) -> None:
    rng, kept = random.Random(seed), None
    while True:
        number = rng.randrange(len(asked))
        seen.asked[user.name] += 1
        try:
            if kept is None or not kept.is_open:
                kept = await Connection.to(server.address)
            answer = await kept.ask(bytes_of(asked[number], user.is_stream))
            seen.num_different += answer.texts() != expected[number]
        except (Broken, OSError) as problem:
            seen.failures.append(f"{user.name}: {type(problem).__name__}: {problem}")
            kept = None
        if kept is not None and not user.is_kept:
            kept.close()
            kept = None
        await asyncio.sleep(rng.uniform(0.0, user.silence_s))


async def restart_all(server: LiveServer, args: argparse.Namespace) -> list[dict[str, float]]:
    rng, told = random.Random(args.seed), []
    for _ in range(args.restarts):
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        answered_s, old = await asyncio.to_thread(server.restart)
        start = asyncio.get_running_loop().time()
        while not server.is_gone(old):
            await asyncio.sleep(0.02)
            if asyncio.get_running_loop().time() - start > LEAVE_S:
                raise SystemExit(f"process {old} does not leave:\n{server.text()}")
        told.append({"answered_s": answered_s, "left_s": asyncio.get_running_loop().time() - start})
        if not args.json:
            print(
                f"restart {len(told)}: answers after {answered_s:.2f} s, left {told[-1]['left_s']:.2f} s later",
                flush=True,
            )
    await asyncio.sleep(1.0)
    return told


async def run(server: LiveServer, args: argparse.Namespace) -> dict[str, Any]:
    asked, expected, seen = questions(args), [], Seen()
    for number, question in enumerate(asked):  # undisturbed, streamed and whole: both must be the same already
        connection = await Connection.to(server.address)
        whole, streamed = [(await connection.ask(bytes_of(question, stream))).texts() for stream in (False, True)]
        connection.close()
        if whole != streamed:
            raise SystemExit(f"question {number} is answered in two ways:\n{whole}\n{streamed}")
        expected.append(whole)
    tasks = [
        asyncio.create_task(ask_for_ever(user, server, asked, expected, seen, args.seed + number))
        for number, user in enumerate(users_of(args))
    ]
    restarts = await restart_all(server, args)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "restarts": len(restarts),
        "requests": dict(seen.asked),
        "failed": len(seen.failures),
        "failures": seen.failures[:20],
        "different": seen.num_different,
        "median_answered_s": round(statistics.median(each["answered_s"] for each in restarts), 3),
        "max_answered_s": round(max(each["answered_s"] for each in restarts), 3),
        "max_left_s": round(max(each["left_s"] for each in restarts), 3),
        "met": not seen.failures and not seen.num_different and len(restarts) == args.restarts,
    }


def show(result: dict[str, Any]) -> None:
    total = sum(result["requests"].values())
    for name, number in sorted(result["requests"].items()):
        print(f"  {name:28} {number:6,} requests")
    print(f"restarts             {result['restarts']}; successors answer after {result['median_answered_s']:.2f} s")
    for failure in result["failures"]:
        print(f"  failed: {failure}")
    for name, what in (("failed", "failed requests"), ("different", "different answers")):
        verdict = "met" if not result[name] else "MISSED"
        print(f"{what:20} {result[name]} of {total:,}  (target 0)  {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder; default: the bundled model")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=80, help="longest answer")
    parser.add_argument("--silence", type=float, default=2.5, help="longest silence on a kept connection, seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--option", action="append", default=[], help="another option for the server: --option=--threads=1"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = ["--log-level", "critical", "--kv-cache-memory-bytes", str(128 * 2**20), *args.option]
    with live_server(args.model, *options) as server:
        result = asyncio.run(run(server, args))
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
