"""A server that is going to be hurt, streams beside it that are read to the byte, and how two answers are compared.

What is read is only kept while the clock runs, and looked at afterwards: the client shares the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live_server import LiveServer, live_server, started

HERE = Path(__file__).resolve().parent
TEXT = "the fox river walked under a bridge and said quietly that nobody had seen rain since spring began"
PATIENCE_S = 120.0
Body = dict[str, Any]


def server(
    model: str | None, module: str | None = None, options: tuple[str, ...] = ()
) -> AbstractContextManager[LiveServer]:
    """A real server on a free port; `module`: with that engine in place of ours, and `options` as SETTING=NUMBER."""
    if module is None:
        return live_server(model, "--log-level", "warning", *options, limit_s=PATIENCE_S)
    command = [sys.executable, str(HERE / "faulty_server.py"), module, *([model] if model else []), *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    return started(command, environment, PATIENCE_S)


@dataclass(slots=True)
class Answer:
    """One request and all that came back: bytes as they came, each piece with its second."""

    body: Body
    begin_s: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def whole(self) -> bytes:
        """Head and body."""
        return b"".join([data for _, data in self.pieces])

    @property
    def status(self) -> int:
        """0 if there was no answer."""
        found = re.match(rb"HTTP/1\.1 (\d+)", self.whole)
        return int(found.group(1)) if found else 0

    @property
    def seed(self) -> int | None:
        """What it was drawn with."""
        found = re.search(rb"x-quire-seed: (\d+)", self.whole)
        return int(found.group(1)) if found else None

    def events(self) -> list[Any]:
        """Server-sent events; None for the end mark."""
        data = _unchunked(self.whole.partition(b"\r\n\r\n")[2])
        lines = [line[6:] for line in data.decode().split("\n\n") if line.startswith("data: ")]
        return [None if line == "[DONE]" else json.loads(line) for line in lines]

    def error(self) -> str | None:
        """What is wrong with it; None for a whole answer."""
        if self.status != 200:
            return f"HTTP {self.status}: {self.whole.partition(bytes.fromhex('0d0a0d0a'))[2][:300]!r}"
        events = self.events()
        told = [event["error"]["message"] for event in events if event and "error" in event]
        if told:
            return str(told[0])
        return None if events and events[-1] is None else "the stream broke off"

    def said(self) -> dict[int, dict[str, Any]]:
        """Of each choice all text, ids, log probabilities and the reason for its end."""
        found: dict[int, dict[str, Any]] = {}
        for event in self.events():
            for choice in (event or {}).get("choices", ()):
                mine = found.setdefault(choice["index"], {"text": "", "ids": [], "logprobs": [], "finish": []})
                mine["text"] += choice["text"]
                mine["ids"] += choice.get("token_ids") or []
                mine["logprobs"] += (choice.get("logprobs") or {}).get("token_logprobs") or []
                mine["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
        return found


def _unchunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size or b"0", 16)
        if not count:
            break
        parts.append(data[:count])
        data = data[count + 2 :]
    return b"".join(parts)


async def ask(server: LiveServer, body: Body, answer: Answer | None = None, encoded: bytes | None = None) -> Answer:
    """Send `body` to /v1/completions and read to the end. Never raises for what the server does.

    `encoded` goes out in its place, where encoding it now would hold others up.
    """
    answer = answer or Answer(body, time.monotonic())
    data = json.dumps(body).encode() if encoded is None else encoded
    host, port = server.address
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    writer = None
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        while piece := await reader.read(65536):
            answer.pieces.append((time.monotonic(), piece))
    except OSError as problem:
        answer.pieces.append((time.monotonic(), b"") if answer.pieces else (time.monotonic(), str(problem).encode()))
    finally:
        if writer is not None:
            writer.close()
    return answer


def body_of(rng: random.Random, tokens: int) -> Body:
    """Any of the ways in which answers are asked for, half of them without a seed."""
    words = " ".join(rng.choice(TEXT.split()) for _ in range(rng.choice((4, 20, 60))))
    body: Body = {
        "prompt": f"Once upon a time {words}",
        "max_tokens": rng.randint(tokens // 2, tokens),
        "stream": True,
        "return_token_ids": True,
        "temperature": 1.0,
        "ignore_eos": True,
    }
    if rng.random() < 0.5:
        body["seed"] = rng.randrange(10**6)
    kind = rng.randrange(6)
    more: list[Body] = [
        {},
        {"temperature": 0.0},
        {"n": 2},
        {"logprobs": 3, "top_p": 0.9},
        {"repetition_penalty": 1.2, "presence_penalty": 0.4},
        {"guided_regex": f"([a-z]+ ){{{tokens // 8},{tokens // 4}}}", "ignore_eos": False},
    ]
    return body | more[kind]


@dataclass(slots=True)
class Load:
    """`num_streams` answers at any time until `stop`; each is followed by another one at once."""

    server: LiveServer
    num_streams: int
    tokens: int
    seed: int = 0
    answers: list[Answer] = field(default_factory=list)
    _stops: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Begin; in the running loop."""
        self._tasks = [
            asyncio.create_task(self._one(random.Random(f"{self.seed}-{i}"))) for i in range(self.num_streams)
        ]

    async def stop(self) -> None:
        """Let those that run come to their ends."""
        self._stops = True
        await asyncio.gather(*self._tasks)

    async def _one(self, rng: random.Random) -> None:
        while not self._stops:
            body = body_of(rng, self.tokens)
            answer = Answer(body, time.monotonic())
            self.answers.append(answer)
            await ask(self.server, body, answer)
            if answer.status != 200:
                await asyncio.sleep(0.2)


async def differing(server: LiveServer, answers: list[Answer], at_once: int) -> list[str]:
    """Ask for each again, with the seed that was told; what is not the same, in words."""
    found: list[str] = []
    left = list(answers)

    async def again() -> None:
        while left:
            answer = left.pop()
            if (error := answer.error()) is not None:
                found.append(f"failed: {error}")
                continue
            calm = await ask(server, answer.body | {"seed": answer.seed})
            if calm.error() is not None or calm.said() != answer.said():
                found.append(f"changed: {json.dumps(answer.body)[:200]}: {calm.error()}")

    await asyncio.gather(*[again() for _ in range(at_once)])
    return found
