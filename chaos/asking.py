"""Plain questions to a server, one at a time, and streams that run while something happens to it.

Knows: HTTP as the standard library speaks it. Does not know: what happens to the server.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from chaos.healthy import Streams, asks
from chaos.http_text import COMPLETIONS

PATIENCE_S = 20.0
GONE = 0  # in place of a status: no connection, or none that lasted


def get(port: int, path: str, patience_s: float = PATIENCE_S) -> int:
    """The status of a GET."""
    return _ask(port, "GET", path, None, patience_s)[0]


def text(port: int, path: str) -> str:
    """The body of a GET."""
    return _ask(port, "GET", path, None, PATIENCE_S)[1]


def complete(port: int, patience_s: float = PATIENCE_S, **fields: object) -> tuple[int, Any]:
    """Status and answer of a completion of a few tokens."""
    body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, **fields}
    status, said = _ask(port, "POST", COMPLETIONS, json.dumps(body), patience_s)
    try:
        return status, json.loads(said)
    except ValueError:
        return status, said


def _ask(port: int, method: str, path: str, body: str | None, patience_s: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return GONE, ""
    finally:
        connection.close()


def metric(port: int, name: str) -> float:
    """The first sample of a metric whose line begins with `name`. Raises KeyError where there is none."""
    for line in text(port, "/metrics").splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Load:
    """How many streams, how long each, and how long they go on after what happens."""

    num_streams: int = 8
    num_tokens: int = 150
    before_s: float = 0.7
    after_s: float = 3.0


def during(port: int, load: Load, happen: Callable[[], object]) -> tuple[Streams, float]:
    """Streams learnt undisturbed, then running while it happens; with the longest time without a token after it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_during(port, load, happen))


async def _during(port: int, load: Load, happen: Callable[[], object]) -> tuple[Streams, float]:
    streams = Streams(port, asks(2 * load.num_streams, load.num_tokens, key=None), load.num_streams)
    await streams.learn()
    streams.start()
    await asyncio.sleep(load.before_s)
    at_s = time.perf_counter()
    await asyncio.to_thread(happen)
    await asyncio.sleep(load.after_s)
    await streams.stop()
    return streams, _longest(streams, at_s)


def _longest(streams: Streams, after_s: float) -> float:
    ends = zip(streams.gap_ends_s, streams.gaps_s, strict=True)
    return max([gap for end, gap in ends if end > after_s], default=0.0)


def told(streams: Streams) -> str:
    """What became of the streams, in a few words."""
    reasons = sorted({str(each.failure)[:90] for each in streams.harmed})
    return f"{streams.num_heard} streams, {len(streams.harmed)} harmed {'; '.join(reasons[:3])}".rstrip()
