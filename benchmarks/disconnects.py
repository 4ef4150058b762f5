"""Clients that leave at random moments: is anything left of them, and is anything computed for them afterwards?

    python benchmarks/disconnects.py                                 200 disconnects from the bundled model
    python benchmarks/disconnects.py --disconnects 1000 --json

Every kind of request (whole, streamed, several samples and prompts, best_of, beams, log probabilities of the prompt,
tools, forms, grammars that nobody has compiled yet, texts that are tokenized in a thread, rendering, one behind another
on a connection) is left at every phase (within its head or body, at once, while it waits or is computed, while its
answer comes), by closing or by a reset, while some clients stay and compare their answers. Then the server must have
what it had before: no KV block in use, as many tasks and descriptors in each process.

After that, one at a time, while long prompts are read in small steps and tokens are drawn behind them: how many steps
end for a client that has gone? They are counted from the moment when the front has no stream open any more, which is
when it has sent its abort: one is the step that was under way. Exit code 1 if anything is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import struct
import sys
import time
from collections import Counter
from typing import Any

from live_server import LiveServer, children, live_server, num_descriptors
from strict_client import Answer, Broken, Connection, request

PLAIN, CHAT = "/v1/completions", "/v1/chat/completions"
TEXT = "Once upon a time there was a fox that lived near the river. "
HELLO = [{"role": "user", "content": "Tell me about a fox."}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
PHASES = ("head", "body", "sent", "waiting", "reading")
SETTLE_S = 30.0
MOST_AFTER = 1  # steps: the one under way
STREAMS = 'front_open{kind="streams"}'


def body_of(kind: str, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A request of that kind, long enough to be left at any phase; prompts are its own, so that they are computed."""
    said = {"prompt": f"{rng.random()} {TEXT * rng.randint(1, 8)}", "max_tokens": 400, "ignore_eos": True}
    chat = {"messages": HELLO, "max_tokens": 400, "seed": rng.randrange(10**6)}
    enum = [f"{rng.randrange(10**9):x}" for _ in range(300)]
    form = {"type": "json_schema", "json_schema": {"name": "f", "schema": {"type": "array", "items": {"enum": enum}}}}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "whole": (PLAIN, said),
        "stream": (PLAIN, {**said, "stream": True}),
        "samples": (PLAIN, {**said, "n": 3, "stream": True}),
        "prompts": (PLAIN, {**said, "prompt": [said["prompt"] + str(number) for number in range(3)], "stream": True}),
        "best of": (PLAIN, {**said, "best_of": 3}),
        "beams": (PLAIN, {**said, "n": 2, "best_of": 4, "use_beam_search": True, "ignore_eos": False}),
        "prompt logprobs": (PLAIN, {**said, "prompt": said["prompt"] * 3, "prompt_logprobs": 2}),
        "tools": (CHAT, {**chat, "tools": [TOOL], "tool_choice": "required", "stream": True}),
        "form": (CHAT, {**chat, "response_format": {"type": "json_object"}, "stream": True}),
        "new grammar": (CHAT, {**chat, "response_format": form}),
        "long text": (PLAIN, {**said, "prompt": said["prompt"] * 60, "truncate_prompt_tokens": 2000}),
        "render": (CHAT + "/render", {**chat, "response_format": form}),
        "deadline": (PLAIN, {**said, "stream": True}),
    }
    return bodies[kind]


KINDS = (
    "whole", "stream", "samples", "prompts", "best of", "beams", "prompt logprobs", "tools", "form", "new grammar",
    "long text", "render", "deadline", "behind",
)  # fmt: skip


def bytes_of(kind: str, rng: random.Random) -> bytes:
    if kind == "behind":
        return b"".join(bytes_of(rng.choice(("whole", "stream")), rng) for _ in range(3))
    path, body = body_of(kind, rng)
    headers = {"x_quire_deadline_ms": "60000"} if kind == "deadline" else {}
    return request(path, json.dumps(body).encode(), **headers)


async def leave(server: LiveServer, kind: str, phase: str, rng: random.Random) -> None:
    """Ask, and be gone at that phase."""
    data = bytes_of(kind, rng)
    head = data.index(b"\r\n\r\n") + 4
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        cut = {"head": rng.randrange(1, head - 1), "body": rng.randrange(head, len(data) - 1)}.get(phase, len(data))
        writer.write(data[:cut])
        await writer.drain()
        if phase == "waiting":
            await asyncio.sleep(rng.expovariate(10.0))
        elif phase == "reading":
            async with asyncio.timeout(2.0):
                await reader.readexactly(rng.randrange(1, 6000))
    except (asyncio.IncompleteReadError, TimeoutError, OSError):
        pass  # its answer was shorter, or does not come: it leaves now
    finally:
        if rng.random() < 0.5:  # a reset in place of an ordinary end
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()


async def once(server: LiveServer, data: bytes) -> Answer:
    connection = await Connection.to(server.address)
    try:
        return await connection.ask(data)
    finally:
        connection.close()


async def metrics_of(server: LiveServer) -> dict[str, float]:
    connection = await Connection.to(server.address)
    try:
        return await metrics(connection)
    finally:
        connection.close()


async def metrics(connection: Connection) -> dict[str, float]:
    text = (await connection.ask(request("/metrics"))).body.decode()
    return {name: float(value) for name, value in re.findall(r"^quire_(\S+) (\S+)$", text, re.MULTILINE)}


async def census(server: LiveServer) -> dict[str, float]:
    """What is open in each process, once nobody is inside any more or SETTLE_S have passed.

    The least of three looks: whoever asks is there himself, and his last connection may still be closing.
    """
    end = time.monotonic() + SETTLE_S
    while (await look(server))["busy"] and time.monotonic() < end:
        await asyncio.sleep(0.05)
    looks = []
    for _ in range(3):
        await asyncio.sleep(0.1)
        looks.append(await look(server))
    return {name: min(each[name] for each in looks) for name in looks[0] if name != "busy"}


async def look(server: LiveServer) -> dict[str, float]:
    now = await metrics_of(server)
    found = {kind: now[f'front_open{{kind="{kind}"}}'] for kind in ("requests", "streams", "tasks")}
    found |= {"KV blocks": now['kv_blocks{state="used"}'], "running": now["num_requests_running"]}
    found |= {"waiting": now["num_requests_waiting"]}
    for number, pid in enumerate((server.pid, *children(server.pid))):
        found[f"descriptors of process {number}"] = num_descriptors(pid)
    return {**found, "busy": sum(found[name] for name in ("requests", "streams", "KV blocks", "running", "waiting"))}


async def stay(server: LiveServer, expected: list[Any], different: Counter[str], seed: int) -> None:
    """One who asks the same things over and over, beside those who leave."""
    rng = random.Random(seed)
    while True:
        number = rng.randrange(len(expected))
        try:
            different["answers"] += 1
            different["different"] += (await once(server, staying(number))).texts() != expected[number]
        except (Broken, OSError):
            different["failed"] += 1


def staying(number: int) -> bytes:
    body = {"prompt": TEXT * (number + 1), "max_tokens": 40, "temperature": 1.0, "seed": number, "ignore_eos": True}
    return request(PLAIN, json.dumps({**body, "stream": number % 2 == 0}).encode())


async def crowd(server: LiveServer, args: argparse.Namespace) -> Counter[str]:
    """All who leave, `--at-once` at any time; how many by kind and phase."""
    rng, done = random.Random(args.seed), Counter[str]()
    plan = [(KINDS[number % len(KINDS)], rng.choice(PHASES), rng.random()) for number in range(args.disconnects)]
    waiting = iter(plan)

    async def some() -> None:
        for kind, phase, chance in waiting:
            await leave(server, kind, phase, random.Random(chance))
            done[phase] += 1
            done[kind] += 1

    await asyncio.gather(*[some() for _ in range(args.at_once)])
    return done


async def steps_after(server: LiveServer, args: argparse.Namespace) -> Counter[int]:
    """Steps that ended after each of `--alone` disconnects, half of them within a prompt, half between tokens."""
    rng, found = random.Random(args.seed), Counter[int]()
    for number in range(args.alone):
        asking = await Connection.to(server.address)
        reader, writer = await asyncio.open_connection(*server.address)
        prompt = [rng.randrange(100, 1000) for _ in range(3000)]
        body = {"prompt": prompt, "max_tokens": 400, "ignore_eos": True, "stream": True, "n": 1 if number % 2 else 8}
        writer.write(request(PLAIN, json.dumps(body).encode()))
        if number % 2:
            await asyncio.sleep(rng.uniform(0.02, 0.2))
        else:
            await reader.readexactly(rng.randrange(3000, 30_000))
        writer.close()
        while (noticed := await metrics(asking))[STREAMS]:
            await asyncio.sleep(0.001)
        asking.close()
        await census(server)
        rests = await metrics_of(server)
        found[int(rests["step_seconds_count"] - noticed["step_seconds_count"])] += 1
    return found


async def run(server: LiveServer, args: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(0)
    expected = [(await once(server, staying(number))).texts() for number in range(8)]
    for kind in KINDS[:-1]:  # threads, the grammars' process and the like are there before it is counted
        answer = await once(server, bytes_of(kind, rng))
        if answer.status != 200:
            raise SystemExit(f"{kind} is refused: {answer.body!r}")
    before = await census(server)
    kept: Counter[str] = Counter()
    stayers = [asyncio.create_task(stay(server, expected, kept, number)) for number in range(args.stayers)]
    start = time.monotonic()
    left = await crowd(server, args)
    seconds = time.monotonic() - start
    for task in stayers:
        task.cancel()
    await asyncio.gather(*stayers, return_exceptions=True)
    after = await census(server)
    wrong = kept["different"] + kept["failed"]
    return {
        "disconnects": sum(left[phase] for phase in PHASES),
        "by_kind_and_phase": dict(left),
        "seconds": round(seconds, 1),
        "before": before,
        "after": after,
        "stayers": dict(kept),
        "met": {
            "nothing left": all(after[name] <= before[name] for name in before) and before.keys() == after.keys(),
            "neighbours": not wrong and kept["answers"] > 0,
        },
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['disconnects']:,} disconnects in {result['seconds']} s: {result['by_kind_and_phase']}")
    print(f"{'':28} before  after")
    for name, number in result["before"].items():
        print(f"  {name:26} {number:6.0f} {result['after'][name]:6.0f}")
    print(f"steps after a disconnect, and how often: {result['steps_after']}")
    print(f"those who stayed: {result['stayers']}")
    for name, is_met in result["met"].items():
        print(f"{name:20} {'met' if is_met else 'MISSED'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder; default: the bundled model")
    parser.add_argument("--disconnects", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--stayers", type=int, default=2, help="clients that stay and compare")
    parser.add_argument("--alone", type=int, default=20, help="disconnects after which steps are counted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--option", action="append", default=[], help="another option for the server: --option=--threads=1"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with live_server(args.model, "--log-level", "critical", "--max-num-seqs", "16", *args.option) as server:
        result = asyncio.run(run(server, args))
    with live_server(args.model, "--log-level", "critical", "--max-num-batched-tokens", "128", *args.option) as server:
        late = asyncio.run(steps_after(server, args))
    result["steps_after"] = {str(number): late[number] for number in sorted(late)}
    result["met"]["at most a step"] = max(late) <= MOST_AFTER
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
