"""Faults of a machine, put into a real server beside healthy streams: are they found, who is harmed, and what does
looking cost?

    python benchmarks/integrity.py inject --number 200      NaN, infinities, wrong ids, stuck tokens, MemoryError
    python benchmarks/integrity.py weights --flips 10       a bit of a weight flips: time until /readyz says no
    python benchmarks/integrity.py overhead --seconds 20    what looking costs, in per cent of a step

Each says for every target whether it was met; exit code 1 if one was not. `--json` prints the figures alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from live_server import LiveServer
from recovery_load import Answer, Load, ask, differing, server
from verdict import Result, report

WRONG = ("nan", "inf", "-inf")
KINDS = (*[f"logits-{wrong}" for wrong in WRONG], *[f"pages-{wrong}" for wrong in WRONG], "id", "stuck", "raises")
MOST_OVERHEAD = 0.005
CODES = {"logits": "not_finite", "pages": "not_finite", "id": "id_out_of_range", "raises": "step_failed"}


@contextmanager
def injured(args: argparse.Namespace, kinds: tuple[str, ...], number: int, **options: float) -> Iterator[Any]:
    """A server whose engine gets hurt, and the file in which it writes that down."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "injuries"
        log.touch()
        orders = {"kinds": kinds, "number": number, "every": args.every, "seed": args.seed, "log": str(log)}
        os.environ["QUIRE_INJURIES"] = json.dumps(orders)
        with server(
            args.model, "injured_engine", tuple(f"{name}={value}" for name, value in options.items())
        ) as served:
            yield served, log


def told(log: Path) -> list[Result]:
    """What the engine wrote down."""
    return [json.loads(line) for line in log.read_text().splitlines()]


async def inject(args: argparse.Namespace) -> Result:
    """Faults at random moments beside streams that are compared to the byte afterwards."""
    with injured(args, KINDS, args.number) as (served, log):
        load = Load(served, args.streams, args.tokens, args.seed)
        load.start()
        end = time.monotonic() + args.most_seconds
        while sum(each["event"] == "injured" for each in told(log)) < args.number and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await load.stop()
        await asyncio.sleep(0.2)
        events = told(log)
        hurt = hurts_of(events)
        victims = [answer for answer in load.answers if name_of(answer) in hurt]
        healthy = [answer for answer in load.answers if name_of(answer) not in hurt and answer.status != 400]
        wrong = await differing(served, healthy, args.streams)
        corrupted = await corrupted_of(served, victims, hurt)
        metrics = await scraped(served)
        return {**figures(events), **summary(load, victims, wrong, corrupted, metrics, served)} | {
            "targets": targets(events, hurt, victims, wrong, corrupted, metrics, served)
        }


def hurts_of(events: list[Result]) -> dict[str, set[str]]:
    """What was done to each request, by the id of its answer."""
    hurt: dict[str, set[str]] = {}
    for each in events:
        if each["event"] == "injured":
            for name in each["requests"]:  # the engine's name ends with the number of the prompt
                hurt.setdefault(name.rpartition("-")[0], set()).add(each["kind"].split("-")[0])
    return hurt


def figures(events: list[Result]) -> Result:
    """Injuries by kind, and in how many steps their victims had ended."""
    ended = [each for each in events if each["event"] == "ended"]
    by_kind: dict[str, list[int]] = {}
    for each in ended:
        by_kind.setdefault(each["kind"], []).append(each["after_steps"])
    return {
        "injuries": sum(each["event"] == "injured" for each in events),
        "steps_until_the_victim_had_ended": {
            kind: {"injuries": len(steps), "most": max(steps)} for kind, steps in sorted(by_kind.items())
        },
    }


def summary(
    load: Load, victims: list[Answer], wrong: list[str], corrupted: list[str], metrics: Result, served: LiveServer
) -> Result:
    """What the clients saw."""
    return {
        "answers": len(load.answers),
        "answers_of_victims": len(victims),
        "refused_before_they_began": sum(answer.status == 400 for answer in load.answers),  # a grammar took too long
        "healthy_failed_or_changed": wrong[:5],
        "corrupted_200s": corrupted[:5],
        "metrics": metrics,
        "server_alive": served.process.poll() is None,
    }


def targets(
    events: list[Result],
    hurt: dict[str, set[str]],
    victims: list[Answer],
    wrong: list[str],
    corrupted: list[str],
    metrics: Result,
    served: LiveServer,
) -> dict[str, bool]:
    """What was promised."""
    ended = [each for each in events if each["event"] == "ended" and each["kind"] != "stuck"]
    deadly = [(answer, kinds) for answer in victims if (kinds := hurt[name_of(answer)] - {"stuck"})]
    untyped = [answer for answer, kinds in deadly if code_of(answer) not in {CODES[kind] for kind in kinds}]
    stuck = [answer for answer in victims if hurt[name_of(answer)] == {"stuck"} and is_long_enough(answer)]
    return {
        "every fault but a stuck token ends its requests within the step": bool(ended)
        and all(each["after_steps"] <= 1 for each in ended),
        "0 corrupted 200s": not corrupted,
        "0 healthy answers failed or changed by a byte": not wrong,
        "every victim's error is typed": not untyped,
        "every stuck answer of 80 tokens or more is counted": metrics["stuck"] >= len(stuck),
        "the engine was never lost": served.process.poll() is None and not metrics["losses"],
    }


def name_of(answer: Answer) -> str:
    """The id of the answer, which is the engine's name for the request; empty where there is none."""
    found = re.search(rb'"id": ?"((?:cmpl|chatcmpl)[^"]*)"', answer.whole)
    return found.group(1).decode() if found else ""


def code_of(answer: Answer) -> str:
    """The error's code; empty where there is none."""
    for event in answer.events():
        if event and "error" in event:
            return str(event["error"].get("code"))
    return ""


def is_long_enough(answer: Answer) -> bool:
    """Whether one token stood 80 times in a row, and so filled a block with more than 64 of them before."""
    for said in answer.said().values():
        ids, longest, run = said["ids"], 1, 1
        for before, after in pairwise(ids):
            run = run + 1 if before == after else 1
            longest = max(longest, run)
        if longest >= 80:
            return True
    return False


async def corrupted_of(served: LiveServer, victims: list[Answer], hurt: dict[str, set[str]]) -> list[str]:
    """Victims whose answers are whole and not what they would have been. A stuck one is not: it is counted."""
    found = []
    for answer in victims:
        if answer.error() is not None or hurt[name_of(answer)] == {"stuck"}:
            continue
        calm = await ask(served, answer.body | {"seed": answer.seed})
        if calm.said() != answer.said():
            found.append(f"{sorted(hurt[name_of(answer)])}: {json.dumps(answer.body)[:200]}")
    return found


async def scraped(served: LiveServer) -> Result:
    """What the server counted."""
    text = await get(served, "/metrics")
    faults = dict(re.findall(r'quire_faults_total\{fault="(\w+)"\} (\S+)', text))
    stuck = re.search(r"^quire_stuck_answers_total (\S+)$", text, re.MULTILINE)
    losses = sum(float(value) for value in re.findall(r"quire_engine_losses_total\{[^}]*\} (\S+)", text))
    looks = {"-".join(found[:2]): float(found[2]) for found in re.findall(LOOKS, text)}
    faults = {fault: float(value) for fault, value in faults.items()}
    return {"faults": faults, "stuck": float(stuck.group(1)) if stuck else 0.0, "losses": losses, "looks": looks}


LOOKS = r'quire_integrity_checks_total\{check="(\w+)",outcome="(\w+)"\} (\S+)'


async def get(served: LiveServer, path: str) -> str:
    """A body."""
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


async def weights(args: argparse.Namespace) -> Result:
    """One bit of one weight flips, idle and under load: until when nobody is told that the answers are right."""
    seconds: dict[str, list[float]] = {"idle": [], "busy": []}
    looks: list[Result] = []
    for number in range(args.flips):
        args.seed, args.every = number, 0
        is_busy = bool(number % 2)
        with injured(args, ("weights",), 1, **({"canary_interval": args.interval} if args.interval else {})) as (
            at,
            log,
        ):
            load = Load(at, args.streams if is_busy else 1, args.tokens, number)
            load.start()
            while not told(log):
                await asyncio.sleep(0.01)
            begin = time.monotonic()
            if not is_busy:
                await load.stop()
            found_s = await until_unready(at, begin, args.most_seconds)
            seconds["busy" if is_busy else "idle"].append(found_s)
            looks.append((await scraped(at))["looks"])
            if is_busy:
                await load.stop()
    period = args.interval or 10.0
    found = [each for all_ in seconds.values() for each in all_]
    return {
        "flips": args.flips,
        "seconds_idle": [round(each, 2) for each in seconds["idle"]],
        "seconds_busy": [round(each, 2) for each in seconds["busy"]],
        "differs_by_check": {
            check: sum(each.get(f"{check}-differs", 0) > 0 for each in looks) for check in ("canary", "weights")
        },
        "targets": {
            "every flip is found": all(each < args.most_seconds for each in found),
            "idle within the period and two seconds": all(each <= period + 2 for each in seconds["idle"]),
            "busy within four periods and two seconds": all(each <= 4 * period + 2 for each in seconds["busy"]),
        },
    }


async def until_unready(served: LiveServer, begin: float, most_s: float) -> float:
    """Seconds from `begin` until /readyz refuses."""
    while time.monotonic() - begin < most_s:
        if " 503 " in (await get(served, "/readyz")).splitlines()[0]:
            break
        await asyncio.sleep(0.05)
    return time.monotonic() - begin


async def overhead(args: argparse.Namespace) -> Result:
    """Steps with and without looking, in turns, in this process."""
    from integrity_overhead import measure

    cases = measure(args.model, args.seconds, random.Random(args.seed))
    return {
        **cases,
        "targets": {
            f"{name}: at most {100 * MOST_OVERHEAD} %": case["overhead"] <= MOST_OVERHEAD
            for name, case in cases.items()
        },
    }


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for run, streams, tokens in ((inject, 16, 160), (weights, 4, 200), (overhead, 32, 0)):
        command = commands.add_parser(run.__name__, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--model", help="folder; the bundled one if absent")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", action="store_true")
        command.add_argument("--most-seconds", type=float, default=600.0, help="give up after so long")
        if run is overhead:
            command.add_argument("--seconds", type=float, default=20.0, help="of measuring, all cases together")
            continue
        command.add_argument("--streams", type=int, default=streams, help="answers at any time")
        command.add_argument("--tokens", type=int, default=tokens, help="their longest")
        command.add_argument("--every", type=float, default=20.0, help="steps between two injuries, on average")
        if run is inject:
            command.add_argument("--number", type=int, default=60, help="injuries")
        else:
            command.add_argument("--flips", type=int, default=2, help="servers that are started and hurt")
            command.add_argument("--interval", type=float, default=1.0, help="--canary-interval; 0 for the default")
    return parser.parse_args()


def main() -> int:
    """Run it, say what came of it."""
    args = parsed()
    return report(asyncio.run(args.run(args)), args.json)


if __name__ == "__main__":
    sys.exit(main())
