"""What becomes of those who read when an engine dies, is killed by a request, or stands still; and is it ever accused
without reason?

    python benchmarks/recovery.py kill --kills 50            kill -9 at random moments under load
    python benchmarks/recovery.py kill --kills 50 --grammars the same to the process that keeps grammars
    python benchmarks/recovery.py poison --poisons 3         requests that abort the engine, beside healthy streams
    python benchmarks/recovery.py stop                       SIGSTOP, under load and idle
    python benchmarks/recovery.py calm --minutes 10          saturation with the longest prompts: nothing may happen

Each says for every target whether it was met; exit code 1 if one was not. `--json` prints the figures alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from itertools import count, pairwise

from faulty_engine import MAGIC
from live_server import LiveServer
from recovery_load import Answer, Load, ask, differing, server
from verdict import Result, report

RESUME_S, UNREADY_S, RECOVERED_S, HEALTH_S = 3.0, 5.0, 15.0, 0.020
PATHS = ("/livez", "/readyz", "/startupz", "/health")


async def kill(args: argparse.Namespace) -> Result:
    """Every stream completes, and is what it would have been."""
    rng = random.Random(args.seed)
    with server(args.model) as served:
        load = Load(served, args.streams, args.tokens, args.seed)
        load.start()
        kills: list[float] = []
        while len(kills) < args.kills:
            await asyncio.sleep(rng.uniform(0.0, 2 * args.every))
            if await asyncio.to_thread(served.hurt, signal.SIGKILL, args.grammars):
                kills.append(time.monotonic())
        await load.stop()
        wrong = await differing(served, load.answers, args.streams)
        pauses = [pause for answer in load.answers for pause in pauses_of(answer, kills)]
        return {
            "kills": len(kills),
            "answers": len(load.answers),
            "answers_that_met_a_kill": sum(any(_spans(answer, kill_s) for kill_s in kills) for answer in load.answers),
            "without_a_seed": sum("seed" not in answer.body for answer in load.answers),
            "wrong": wrong,
            "resume_s": spread(pauses),
            "server_alive": served.process.poll() is None,
            "targets": {
                "every stream completes and is byte-identical": not wrong,
                f"resumed within {RESUME_S:.0f} s": (bool(pauses) or args.grammars)
                and max(pauses, default=0.0) <= RESUME_S,
                "the server lives": served.process.poll() is None,
            },
        }


async def poison(args: argparse.Namespace) -> Result:
    """Only the sender is harmed."""
    rng = random.Random(args.seed)
    with server(args.model, "faulty_engine") as served:
        load = Load(served, args.streams, args.tokens, args.seed)
        load.start()
        poisoned = []
        for _ in range(args.poisons):
            await asyncio.sleep(args.every)
            ids = [5, 6, 7, *MAGIC, rng.randrange(5, 200)]
            begin_s = time.monotonic()
            answer = await ask(served, {"prompt": ids, "max_tokens": 8, "stream": rng.random() < 0.5})
            poisoned.append((answer, time.monotonic() - begin_s))
        await asyncio.sleep(args.every)
        await load.stop()
        wrong = await differing(served, load.answers, args.streams)
        lines = served.lines
    ends = [(answer.status, b"request_killed_engine" in answer.whole) for answer, _ in poisoned]
    silences = [max(after - before for before, after in pairwise(moments_of(answer))) for answer in load.answers]
    return {
        "streams": args.streams,
        "answers": len(load.answers),
        "wrong": wrong,
        "poisoned": ends,
        "seconds_until_it_is_told": spread([seconds for _, seconds in poisoned]),
        "longest_silence_s": spread(silences),
        "engines_lost": sum("engine lost" in line for line in lines),
        "targets": {
            "all others complete, byte-identical": not wrong,
            "its sender is told that it was this request": ends == [(500, True)] * args.poisons,
        },
    }


async def stop(args: argparse.Namespace) -> Result:
    """SIGSTOP: told in time, mended in time, and nobody loses anything."""
    unready, recovered, wrong = [], [], []
    with server(args.model) as served:
        for round_ in range(args.rounds):
            load = Load(served, args.streams if round_ % 2 == 0 else 0, args.tokens, args.seed + round_)
            load.start()
            await asyncio.sleep(args.every)
            begin = time.monotonic()
            await asyncio.to_thread(served.hurt, signal.SIGSTOP)
            unready.append(await until(served, 503, begin))
            recovered.append(await until(served, 200, begin))
            await load.stop()
            wrong += await differing(served, load.answers, args.streams)
        dumped = any("most recent call first" in line for line in served.lines)
    return {
        "rounds": args.rounds,
        "unready_s": spread(unready),
        "recovered_s": spread(recovered),
        "wrong": wrong,
        "targets": {
            f"readyz false within {UNREADY_S:.0f} s": max(unready) <= UNREADY_S,
            f"recovered within {RECOVERED_S:.0f} s": max(recovered) <= RECOVERED_S,
            "every stream completes and is byte-identical": not wrong,
            "the engine's stacks are in the log": dumped,
        },
    }


async def calm(args: argparse.Namespace) -> Result:
    """The longest prompts, as many as there is room for and more, for a long time."""
    rng = random.Random(args.seed)
    with server(args.model) as served:
        length = args.prompt_tokens or await longest(served)
        end = time.monotonic() + 60.0 * args.minutes
        answers: list[Answer] = []
        numbers = count(1000)
        # Made beforehand: whoever encodes thousands of ids meanwhile measures himself. The first two make each its own.
        ids = ", ".join([str(rng.randrange(10, 200)) for _ in range(length - 2)])
        rest = f', {ids}], "max_tokens": 8, "stream": true, "ignore_eos": true}}'.encode()

        async def reader() -> None:
            while time.monotonic() < end:
                first = b'{"prompt": [%d, %d' % divmod(next(numbers), 1000)
                answers.append(await ask(served, {}, encoded=first + rest))

        readers = [asyncio.create_task(reader()) for _ in range(args.streams)]
        seconds, false_alarms = await probed(served, end, args.rate)
        await asyncio.gather(*readers)
        failures = [error for answer in answers if (error := answer.error()) is not None and answer.status != 429]
        losses = [line for line in served.lines if "engine lost" in line]
    p99 = quantiles(seconds)[2]
    return {
        "minutes": args.minutes,
        "prompt_tokens": length,
        "prompts_read": sum(answer.status == 200 for answer in answers),
        "probes": len(seconds),
        "health_ms": spread([1000 * each for each in seconds]),
        "false_alarms": false_alarms[:5] + losses[:5],
        "failures": failures[:5],
        "targets": {
            "no false alarm": not false_alarms and not losses,
            f"health p99 at most {1000 * HEALTH_S:.0f} ms": p99 <= HEALTH_S,
            "no request failed": not failures,
        },
    }


async def longest(served: LiveServer) -> int:
    """The longest prompt that leaves room for a few tokens."""
    answer = await ask(served, {"prompt": [9] * 10**6, "max_tokens": 8})
    found = answer.whole.decode(errors="replace").partition("allowed: ")[2]
    return int(found.split()[0]) - 8


async def probed(served: LiveServer, end: float, rate: float) -> tuple[list[float], list[str]]:
    """Every path in turn over kept connections: how long each answer took, and what was not 200."""
    seconds: list[float] = []
    alarms: list[str] = []
    reader, writer = await asyncio.open_connection(*served.address)
    number = 0
    while (now := time.monotonic()) < end:
        path = PATHS[number % len(PATHS)]
        number += 1
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        data = await reader.readexactly(size)
        seconds.append(time.monotonic() - now)
        if not head.startswith(b"HTTP/1.1 200"):
            alarms.append(f"{path}: {data.decode()}")
        await asyncio.sleep(max(0.0, 1.0 / rate - seconds[-1]))
    writer.close()
    return seconds, alarms


async def until(served: LiveServer, status: int, begin: float) -> float:
    """Seconds from `begin` until /readyz answers with `status`."""
    host, port = served.address
    while time.monotonic() - begin < 60.0:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head = await reader.read()
        writer.close()
        if head.startswith(f"HTTP/1.1 {status}".encode()):
            break
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


def pauses_of(answer: Answer, moments: list[float]) -> list[float]:
    """From the last of `moments` in a silence of this stream to its end; only silences that a loss explains."""
    found = []
    for before, after in pairwise(moments_of(answer)):
        within = [moment for moment in moments if before <= moment < after]
        if within and after - before > 0.1:
            found.append(after - within[-1])
    return found


def moments_of(answer: Answer) -> list[float]:
    """When it was asked, and when each piece came."""
    return [answer.begin_s, *[second for second, _ in answer.pieces]]


def _spans(answer: Answer, moment: float) -> bool:
    return bool(answer.pieces) and answer.begin_s <= moment <= answer.pieces[-1][0]


def quantiles(values: list[float]) -> tuple[float, float, float, float]:
    """Least, median, 99th percentile, most."""
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], ordered[-1]


def spread(values: list[float]) -> dict[str, float]:
    """The same, by name."""
    if not values:
        return {}
    return {name: round(value, 3) for name, value in zip(("min", "p50", "p99", "max"), quantiles(values), strict=True)}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for run, streams, tokens, every in (
        (kill, 16, 400, 1.0),
        (poison, 32, 400, 2.0),
        (stop, 8, 200, 1.0),
        (calm, 16, 0, 0.0),
    ):
        command = commands.add_parser(run.__name__, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--model", help="folder; the bundled one if absent")
        command.add_argument("--streams", type=int, default=streams, help="answers at any time")
        command.add_argument("--tokens", type=int, default=tokens, help="their longest")
        command.add_argument("--every", type=float, default=every, help="seconds between two events, on average")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", action="store_true")
        if run is kill:
            command.add_argument("--kills", type=int, default=8)
            command.add_argument("--grammars", action="store_true", help="kill the grammar process, not the engine")
        if run is poison:
            command.add_argument("--poisons", type=int, default=2)
        if run is stop:
            command.add_argument("--rounds", type=int, default=2)
        if run is calm:
            command.add_argument("--minutes", type=float, default=0.25)
            command.add_argument("--prompt-tokens", type=int, help="the longest that the model takes if absent")
            command.add_argument("--rate", type=float, default=50.0, help="health questions a second")
    return parser.parse_args()


def main() -> int:
    """Run it, say what came of it."""
    args = parsed()
    return report(asyncio.run(args.run(args)), args.json)


if __name__ == "__main__":
    sys.exit(main())
