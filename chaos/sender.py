"""Sends a corpus, so many entries a second, and notes what became of each; in a process of its own, niced.

    python -m chaos.sender PORT CORPUS                   obeys lines on stdin, see `Order`
    python -m chaos.sender PORT findings.jsonl --all     sends all of it once, one after another, and tells each outcome

Every entry has a connection of its own, opened when it is due whether earlier ones were answered or not.

Knows: sockets, statuses, time. Does not know: what entries mean, whose streams run beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import uvloop

from chaos.entry import CLOSED, LEFT, SILENT, UNREACHABLE, Entry, Step, read
from chaos.http_text import get

NICENESS = 19
PATIENCE_S = 30.0  # for an answer, after the last byte
SLOW_S = 5.0
HARMLESS = "/health"
MOST_KEPT = 2**20  # bytes of an answer that are looked at
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: ?chunked\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Order:
    """`num` entries at `rate` a second: the next of the corpus, or GETs of `path`."""

    num: int
    rate: float
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an entry: a status or a word of `entry.py`, and seconds from its last byte to the end."""

    number: int
    kind: str
    outcome: str
    seconds: float
    late_s: float
    is_right: bool


class Exchange(asyncio.Protocol):
    """One connection: writes the steps, reads until the answer is whole, the server closes, or time is up."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Look at what came."""
        if len(self.data) < MOST_KEPT:
            self.data += data
        elif data.endswith(b"0\r\n\r\n"):
            self.data[-5:] = b"0\r\n\r\n"
        if is_whole(self.data):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed, or we did."""
        self.is_open = False
        self._room.set()
        self._end()

    def pause_writing(self) -> None:
        """The server reads slowly."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._room.set()

    async def write(self, steps: tuple[Step, ...]) -> None:
        """Send all steps, or as much as the server lets us."""
        for step in steps:
            if not self.is_open or self._transport is None or self.ended.done():
                return
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
            else:
                text, times = step if isinstance(step, tuple) else (step, 1)
                await self._write(text.encode("latin-1"), times)

    async def _write(self, data: bytes, times: int) -> None:
        at_once = max(1, 65536 // max(1, len(data)))
        while times > 0 and self.is_open and self._transport is not None and not self.ended.done():
            self._transport.write(data * min(times, at_once))
            times -= at_once
            if not self._room.is_set():
                await self._room.wait()

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def is_whole(data: bytes | bytearray) -> bool:
    """Whether `data` is a whole answer: by its length, or by its last chunk."""
    head, mark, _ = bytes(data[:8192]).partition(b"\r\n\r\n")
    if not mark:
        return False
    if head.startswith(b"HTTP/1.1 100"):
        return False
    if CHUNKED.search(head + b"\r\n"):
        return data.endswith(b"0\r\n\r\n")
    length = LENGTH.search(head + b"\r\n")
    return length is not None and len(data) >= len(head) + 4 + int(length[1])


async def exchange(port: int, entry: Entry, patience_s: float = PATIENCE_S) -> tuple[str, float]:
    """What became of one entry, and how long after its last byte."""
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await loop.create_connection(Exchange, "127.0.0.1", port)
    except OSError:
        return UNREACHABLE, 0.0
    try:
        await protocol.write(entry.steps)
        sent_s = time.perf_counter()
        most_s = patience_s if entry.leave_s is None else entry.leave_s
        await asyncio.wait({protocol.ended}, timeout=most_s)
        seconds = time.perf_counter() - sent_s
        statuses = [each for each in STATUS.findall(bytes(protocol.data)) if each != b"100"]
        if statuses:
            return max(statuses, key=lambda status: status[:1] == b"5").decode(), seconds
        if protocol.ended.done():
            return CLOSED, seconds
        return SILENT if entry.leave_s is None else LEFT, seconds
    finally:
        protocol.close()


async def replay(port: int, entries: Iterator[tuple[int, Entry]], order: Order) -> list[Outcome]:
    """Send `order.num` of the entries, each when it is due, and wait for the last."""
    loop = asyncio.get_running_loop()
    begin, found, tasks = loop.time(), [], set()

    async def one(number: int, entry: Entry, due_s: float) -> None:
        late_s = loop.time() - due_s
        outcome, seconds = await exchange(port, entry)
        found.append(Outcome(number, entry.kind, outcome, round(seconds, 4), round(late_s, 4), entry.accepts(outcome)))

    for place, (number, entry) in enumerate(islice(entries, order.num)):
        due_s = begin + place / order.rate
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        task = asyncio.create_task(one(number, entry, due_s))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return found


def same(path: str, num: int) -> Iterator[tuple[int, Entry]]:
    """One harmless GET again and again."""
    entry = Entry(f"GET {path}", (get(path, key=None),), ("200",))
    return ((-1, entry) for _ in range(num))


def obey(port: int, corpus: Path) -> None:
    """Orders on stdin, a line of JSON each; for each a line of outcomes on stdout."""
    entries = enumerate(read(corpus))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            order = Order(**json.loads(line))
            source = entries if order.path is None else same(order.path, order.num)
            outcomes = runner.run(replay(port, source, order))
            print(json.dumps([asdict(each) for each in outcomes]), flush=True)


async def watched(port: int, entry: Entry) -> tuple[str, float, float]:
    """An entry's outcome, its seconds, and the longest that a GET of `HARMLESS` took meanwhile."""
    asking, worst_s = Entry("", (get(HARMLESS, key=None),)), 0.0
    task = asyncio.create_task(exchange(port, entry))
    while not task.done():
        begin_s = time.perf_counter()
        await exchange(port, asking)
        worst_s = max(worst_s, time.perf_counter() - begin_s)
    return *task.result(), worst_s


def send_all(port: int, corpus: Path) -> int:
    """Each entry alone, told as it comes; 1 if any outcome was wrong."""
    num_wrong = 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number, entry in enumerate(read(corpus)):
            outcome, seconds, worst_s = runner.run(watched(port, entry))
            num_wrong += not entry.accepts(outcome)
            verdict = "right" if entry.accepts(outcome) else f"WRONG, right are {', '.join(entry.right)}"
            told = f"{entry.num_bytes:9} bytes {outcome:8} {seconds:7.3f} s, others {1000 * worst_s:7.1f} ms"
            print(f"{number:6} {entry.kind:32} {told}  {verdict}", flush=True)
    return int(num_wrong > 0)


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m chaos.sender")
    parser.add_argument("port", type=int)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--all", action="store_true", help="Send each once, one after another, and tell.")
    args = parser.parse_args()
    os.nice(NICENESS)
    if args.all:
        return send_all(args.port, args.corpus)
    obey(args.port, args.corpus)
    return 0


if __name__ == "__main__":
    sys.exit(main())
