"""Streams that mean no harm: asked again and again, every byte compared with what they said undisturbed.

Half are greedy and half drawn with a seed; some tell log probabilities, so that a bit that flips in a logit shows. What
is compared is the whole answer but for its id and its second.

Knows: streamed completions over plain TCP, at as little cost as can be. Does not know: what goes on beside them.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from chaos.http_text import CHAT, COMPLETIONS, HEALTHY_KEY, HOST, head, render

IDS = re.compile(rb'"id":"[^"]*"|"created":\d+')
EVENT = re.compile(rb"^data: .*$", re.MULTILINE)
STOP_S = 60.0  # longer than any answer may take


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, as it is written."""

    name: str
    request: bytes


@dataclass(slots=True)
class Heard:
    """What came of one: when its events came (seconds of `time.perf_counter`), and the events themselves."""

    name: str
    at_s: list[float] = field(default_factory=list)
    data: bytes = b""
    failure: str | None = None

    @property
    def said(self) -> bytes:
        """Everything of the answer that has to be the same each time."""
        return IDS.sub(b"", b"\n".join(EVENT.findall(self.data.replace(b"\r", b""))))


def asks(num: int, num_tokens: int, key: str | None = HEALTHY_KEY) -> list[Ask]:
    """`num` different requests."""
    return [_ask(number, num_tokens, key) for number in range(num)]


def _ask(number: int, num_tokens: int, key: str | None) -> Ask:
    body: dict[str, object] = {"max_tokens": num_tokens, "stream": True, "ignore_eos": True}
    body |= {"temperature": 0} if number % 2 == 0 else {"temperature": 1.0, "seed": number, "top_p": 0.95}
    opening = f"Story {number}: once upon a time there was a little"
    if number % 4 == 3:
        path = CHAT
        body |= {"messages": [{"role": "user", "content": opening}], "logprobs": True, "top_logprobs": 2}
    else:
        path = COMPLETIONS
        body |= {"prompt": opening, "logprobs": 2 if number % 4 == 2 else None}
    text = render(body)
    keyed = [] if key is None else [("Authorization", f"Bearer {key}")]
    headers = [("Host", HOST), *keyed, ("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    return Ask(f"{path} {number}", (head("POST", path, headers) + text).encode("latin-1"))


class _Stream(asyncio.Protocol):
    """One connection, one request at a time; kept open between them."""

    def __init__(self) -> None:
        self.heard: Heard | None = None
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = transport, True  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._end("the connection was lost")

    def data_received(self, data: bytes) -> None:
        if self.heard is None:
            return
        num_events = data.count(b"data: ")
        if num_events:
            self.heard.at_s += [time.perf_counter()] * num_events
        self._parts.append(data)
        if data.endswith(b"0\r\n\r\n"):
            self._end(None)
        elif len(self._parts) == 1 and not data.startswith(b"HTTP/1.1 200"):
            self._end(data[:300].decode(errors="replace"))

    async def ask(self, ask: Ask) -> Heard:
        """Send, and read to the end."""
        self.heard, self._parts = Heard(ask.name), []
        heard = self.heard
        self._ended = asyncio.get_running_loop().create_future()
        if self._transport is None or not self.is_open:
            heard.failure = "no connection"
            return heard
        self._transport.write(ask.request)
        await asyncio.wait({self._ended}, timeout=STOP_S)
        if not self._ended.done():
            self._end(f"no end after {STOP_S:.0f} s")
        heard.data = b"".join(self._parts)
        return heard

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, failure: str | None) -> None:
        if self.heard is not None and self._ended is not None and not self._ended.done():
            self.heard.failure = failure
            self._ended.set_result(None)
        self.heard = None


class Streams:
    """Keeps `num_streams` of the asks going, in turn, until told to stop; `heard` has all that ended.

    `gaps_s` are the times between events of all answers, `gap_ends_s` when each of them ended.
    `golden` holds what each said when nothing was beside it, once `learn` has run; an answer that differs, or fails, is
    kept whole in `harmed`.
    """

    def __init__(self, port: int, todo: Sequence[Ask], num_streams: int) -> None:
        self.golden: dict[str, bytes] = {}
        self.gap_ends_s, self.gaps_s = array("d"), array("d")  # millions in half an hour
        self.num_heard = 0
        self.harmed: list[Heard] = []
        self._port, self._todo, self._num_streams = port, list(todo), num_streams
        self._next = 0
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def learn(self) -> None:
        """Hear every ask once, with no others but these. Raises RuntimeError for one that fails."""
        places = asyncio.Semaphore(self._num_streams)

        async def one(ask: Ask) -> None:
            async with places:
                stream = await self._connect()
                heard = await stream.ask(ask)
                stream.close()
            if heard.failure is not None or len(heard.at_s) < 3:
                raise RuntimeError(f"{ask.name} fails on its own: {heard.failure or heard.data[:500]!r}")
            self.golden[ask.name] = heard.said

        await asyncio.gather(*[one(ask) for ask in self._todo])

    def start(self) -> None:
        """Begin to ask."""
        self._tasks = [asyncio.create_task(self._keep_asking()) for _ in range(self._num_streams)]

    async def stop(self) -> None:
        """Hear those that run to their ends, and no more."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _keep_asking(self) -> None:
        stream = await self._connect()
        while not self._is_over:
            ask = self._todo[self._next % len(self._todo)]
            self._next += 1
            heard = await stream.ask(ask)
            self._judge(heard)
            if heard.failure is not None:
                stream.close()
                await asyncio.sleep(0.1)
                stream = await self._connect()
        stream.close()

    def _judge(self, heard: Heard) -> None:
        self.num_heard += 1
        self.gap_ends_s.extend(heard.at_s[1:])
        self.gaps_s.extend([later - earlier for earlier, later in pairwise(heard.at_s)])
        if heard.failure is None and heard.said != self.golden[heard.name]:
            heard.failure = "other bytes than undisturbed"
        if heard.failure is not None:
            self.harmed.append(heard)

    async def _connect(self) -> _Stream:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            try:
                _, stream = await loop.create_connection(_Stream, "127.0.0.1", self._port)
                return stream
            except OSError:
                await asyncio.sleep(0.1)
        return _Stream()
