"""Streamed requests to an OpenAI-compatible server at as little cost to the machine as can be, for floods.

Knows: HTTP/1.1 over plain TCP, as far as such servers speak it. Does not know: TLS, proxies, or when to send.

A client that parses every event takes as long as a server that writes it; on a machine that both share, the figures
would be the client's. So connections are kept, bytes are looked at only for the status, for whether there is text in
them, and for the usage at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import cast
from urllib.parse import urlsplit

from quire.cli.bench.http_client import Outcome, Target
from quire.cli.bench.workload import Ask
from quire.errors import InvalidSetting

LAST_CHUNK = b"0\r\n\r\n"
TEXT = re.compile(rb'"(?:text|content)": ?"[^"]')
USAGE = {
    "num_prompt_tokens": re.compile(rb'"prompt_tokens": ?(\d+)'),
    "num_output_tokens": re.compile(rb'"completion_tokens": ?(\d+)'),
}
LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)


class LeanClient:
    """`send` one request; connections are reused. `close` ends them."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.path)
        if parts.scheme != "http" or parts.hostname is None:
            raise InvalidSetting("this client speaks plain HTTP only", got=target.url, allowed="http://HOST:PORT")
        self._target = target
        self._host, self._port, self._path = parts.hostname, parts.port or 80, parts.path
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def send(self, ask: Ask, start: float, outcome: Outcome | None = None) -> Outcome:
        """Send `ask` now and read its stream to the end. Never raises for what the server or the network does.

        `outcome`, if given, is filled while the stream is read: for those who will not wait for its end.
        """
        outcome = outcome or Outcome(ask.at_s)
        outcome.sent_s = time.perf_counter() - start
        try:
            connection = await self._connection()
            await connection.exchange(self._bytes(ask), outcome, start)
            if connection.is_open:
                self._idle.append(connection)
        except OSError as problem:
            outcome.failure = type(problem).__name__
        outcome.end_s = time.perf_counter() - start
        if outcome.failure is None and not outcome.chunk_s:
            outcome.failure = "no text"
        return outcome

    def close(self) -> None:
        """End all connections, those of requests that still run too."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        self._all.append(connection)
        return connection

    def _bytes(self, ask: Ask) -> bytes:
        body = json.dumps(self._target.body(ask)).encode()
        headers = {"Host": f"{self._host}:{self._port}", "Content-Type": "application/json", **self._target.headers}
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"POST {self._path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._outcome: Outcome | None = None
        self._ended: asyncio.Future[None] | None = None
        self._start = 0.0
        self._head = b""  # of an answer, until it is whole; then of its body what is still looked at
        self._num_left = -1  # bytes of a body of known length

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._end("the connection was lost")

    async def exchange(self, request: bytes, outcome: Outcome, start: float) -> None:
        """Write `request`, and fill `outcome` with what comes."""
        self._outcome, self._start = outcome, start
        self._head, self._num_left = b"", -1
        self._ended = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            self._transport.write(request)
            await self._ended

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        outcome = self._outcome
        if outcome is None:
            return
        if not outcome.chunk_s and outcome.failure is None:
            self._head += data
            if not self._begin(outcome):
                return
            data = self._head
        elif outcome.failure is None:
            outcome.chunk_s += [time.perf_counter() - self._start] * len(TEXT.findall(data))
        if self._num_left >= 0:
            self._num_left -= len(data)
            if self._num_left <= 0:
                self._end(None)
        elif data.endswith(LAST_CHUNK):
            for name, pattern in USAGE.items():
                if found := pattern.findall(data):
                    setattr(outcome, name, int(found[-1]))
            self._end(None)

    def _begin(self, outcome: Outcome) -> bool:
        """Whether enough has come to say what this answer is: its failure, its end, or its first text."""
        head, mark, body = self._head.partition(b"\r\n\r\n")
        if not mark:
            return False
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            outcome.failure = f"HTTP {status}"
            length = LENGTH.search(head)
            self._num_left = int(length.group(1)) if length else -1
            self._head = body
            return True
        outcome.chunk_s += [time.perf_counter() - self._start] * len(TEXT.findall(body))
        return bool(outcome.chunk_s) or body.endswith(LAST_CHUNK)

    def _end(self, failure: str | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome.failure = outcome.failure or failure
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
