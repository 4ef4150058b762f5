"""uvicorn's HTTP protocol with the bounds that it lacks: how many connections, how large a head, how long it takes, and
how much may wait on one connection behind a request that is answered.

A refusal is a whole answer, and the connection stays half open for a moment: closing at once, with bytes still coming,
would make the client's system throw the answer away.

Knows: connections, and bytes before the body. Does not know: what is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from quire.errors import HeadTooLarge, QuireError, TargetTooLong, TooManyConnections, TooSlow
from quire.limits import (
    HEAD_TIMEOUT_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_PIPELINED_BYTES,
    MAX_TARGET_BYTES,
)
from quire.observe import log
from quire.server import failures
from quire.server.access import OPEN_PATHS
from quire.settings import ServerSettings

HEAD_END = b"\r\n\r\n"
LINGER_S = 1.0
REFUSED_HEAD_TIMEOUT_S = 2.0
SETTLED_S = 1.0  # a connection without a request for that long makes way for a new one
SPARE_CONNECTIONS = 64  # that may be told so at once; past them there is no answer


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most connections in all, and of one address; 0: no bound."""

    num_connections: int = ServerSettings().max_connections
    num_per_address: int = 0


class HttpConfig(uvicorn.Config):
    """uvicorn's settings, and the bounds of its connections."""

    def __init__(self, app: ASGIApp, bounds: Bounds, **settings: object) -> None:
        super().__init__(app, **settings)  # type: ignore[arg-type]
        self.bounds = bounds


class HttpProtocol(HttpToolsProtocol):
    """Refuses a connection too many, a head that is too large or late, and a sender that does not wait for answers.

    Counted is what arrives before a head is complete, so a body that shares a packet with its head costs nothing.
    Requests behind one that is answered are read on, within limits: uvicorn stops reading there, and would not notice
    that its client has gone until the answer is whole.
    """

    _num_head_bytes = 0
    _tail = b""
    _in_head = True
    _is_cut = False
    _refusal: QuireError | None = None
    _timer: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None
    _num_waiting_bytes = 0
    idle_since_s = 0.0  # on the loop's clock: when its last answer ended, or it was made

    @property
    def bounds(self) -> Bounds:
        """Of all connections of this server."""
        return self.config.bounds if isinstance(self.config, HttpConfig) else Bounds()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: its first head must come in time. Past the bound it is only told so, or not even that."""
        super().connection_made(transport)
        self.idle_since_s = self.loop.time()
        if len(self.connections) > self.bounds.num_connections + SPARE_CONNECTIONS:
            self._is_cut = True
            transport.abort()
            return
        self._refusal = self._too_many()
        self._wait_for_head(HEAD_TIMEOUT_S if self._refusal is None else REFUSED_HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more: uvicorn tells the last request so, here all others hear it, too."""
        self._stop_timer()
        waiting = [cycle for cycle, _ in self.pipeline]
        for cycle in waiting if self._answered is None else [self._answered, *waiting]:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for ended in (self.cycle, self._answered, *waiting):
            if ended is not None and isinstance(ended.transport, _Lingering):
                ended.transport.let_go()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, then parse."""
        if self._is_cut or (self._in_head and not self._is_head_small(data)):
            return
        super().data_received(data)
        if self._in_head and self._timer is None and not self._is_cut:
            self._num_head_bytes = 1  # of the next request's; what came with the end of the one before is not counted
            self._wait_for_head(HEAD_TIMEOUT_S)

    def _is_head_small(self, data: bytes) -> bool:
        """Count `data` up to the head's end; where it is too much, refuse."""
        window = self._tail + data
        end = window.find(HEAD_END)
        self._num_head_bytes += len(data) if end < 0 else end + len(HEAD_END) - len(self._tail)
        self._tail = window[1 - len(HEAD_END) :] if end < 0 else b""
        if self._num_head_bytes <= MAX_HEAD_BYTES:
            return True
        got, allowed = f"more than {MAX_HEAD_BYTES} bytes", f"{MAX_HEAD_BYTES} bytes"
        self._cut(HeadTooLarge("the head of the request is too large", got=got, allowed=allowed))
        return False

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._is_cut:
            self._in_head = True
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if self._is_cut:
            return
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            allowed = f"{MAX_TARGET_BYTES} bytes"
            self._cut(TargetTooLong("the path and query are too long", got=f"more than {allowed}", allowed=allowed))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._is_cut:
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            got, allowed = f"more than {MAX_HEADERS}", f"{MAX_HEADERS} headers"
            self._cut(HeadTooLarge("the request has too many headers", got=got, allowed=allowed))

    def on_headers_complete(self) -> None:
        """A head is complete. Health is told on any connection."""
        if self._is_cut:
            return
        self._in_head, self._num_head_bytes = False, 0
        self._stop_timer()
        is_open = self.url.partition(b"?")[0].decode("latin-1") in OPEN_PATHS
        if self._refusal is not None and not is_open:
            self._cut(self._refusal)
            return
        super().on_headers_complete()
        self.cycle.transport = _Lingering(self.transport, self._close)  # type: ignore[assignment]
        if self._refusal is not None:
            self.cycle.keep_alive = False
        self._read_on(0)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if not self._is_cut:
            super().on_body(body)
            self._read_on(len(body))

    def on_message_complete(self) -> None:
        """A request is complete."""
        if not self._is_cut:
            super().on_message_complete()

    @property
    def is_idle(self) -> bool:
        """True while neither a request nor a part of one is here."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.pipeline and not self._num_head_bytes

    @property
    def is_open(self) -> bool:
        """Whether it counts: it has not been refused, nor closed."""
        return self._refusal is None and not self._is_cut and not self.transport.is_closing()

    @property
    def is_waiting(self) -> bool:
        """Whether no request has come for a while: whoever is like that makes way for others."""
        between = self.cycle is None or self.cycle.response_complete
        return between and self.idle_since_s + SETTLED_S < self.loop.time()

    def on_response_complete(self) -> None:
        """An answer has been given; the next head may come. The rest of a body that nobody read is not waited for."""
        self.idle_since_s = self.loop.time()
        super().on_response_complete()
        if self.cycle.response_complete:
            self._close_if_unread()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _read_on(self, num_bytes: int) -> None:
        if not self.pipeline:
            self._num_waiting_bytes = 0
            return
        self._num_waiting_bytes += num_bytes
        if len(self.pipeline) > MAX_PIPELINED or self._num_waiting_bytes > MAX_PIPELINED_BYTES:
            self._is_cut = True
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _too_many(self) -> TooManyConnections | None:
        """Why there is no room for this connection; None where there is, or one that waits has made way."""
        bounds = self.bounds
        if len(self.connections) <= bounds.num_connections and not bounds.num_per_address:
            return None
        open_ones = [each for each in self.connections if isinstance(each, HttpProtocol) and each.is_open]
        if bounds.num_per_address and self.client is not None:
            same = [each for each in open_ones if each.client is not None and each.client[0] == self.client[0]]
            if len(same) > bounds.num_per_address:
                return _refused(f"{bounds.num_per_address} of one address")
        if len(open_ones) <= bounds.num_connections:
            return None
        oldest = min([each for each in open_ones if each.is_waiting], key=lambda each: each.idle_since_s, default=None)
        if oldest is None:
            return _refused(str(bounds.num_connections))
        oldest.transport.close()
        return None

    def _wait_for_head(self, seconds: float) -> None:
        late = TooSlow("the head of the request did not come in time", allowed=f"{seconds:g} s")
        self._timer = self.loop.call_later(seconds, self._give_up, late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, late: TooSlow) -> None:
        """A head that began is told so; a connection on which nothing came is closed."""
        self._timer = None
        if self._num_head_bytes:
            self._cut(late)
        elif not self.transport.is_closing():
            self.transport.close()

    def _cut(self, error: QuireError) -> None:
        """Answer, unless an answer is under way, and read no more."""
        self._is_cut = True
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        log.say(log.get("access"), logging.INFO, "refused", status=error.status, code=error.code)
        self.transport.write(_answer(error))
        self._linger()

    def _close(self) -> None:
        """Close after an answer."""
        self._close_if_unread()
        if not self._is_cut:
            self.transport.close()

    def _close_if_unread(self) -> None:
        if self.cycle.more_body and not self._is_cut and not self.transport.is_closing():
            self._is_cut = True
            self._linger()

    def _linger(self) -> None:
        """Nothing more is written, and what comes is thrown away, until the client closes or some time has passed."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()


class _Lingering:
    """The transport as an answer sees it: closing it is the protocol's affair."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport, self.close = transport, close

    def let_go(self) -> None:
        """Forget the protocol: the two would hold each other until the next search for cyclic garbage, minutes away."""
        self.close = self._transport.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _refused(allowed: str) -> TooManyConnections:
    return TooManyConnections(
        "too many connections are open", allowed=allowed, hint="Try again in a second, or use fewer at once."
    )


def _answer(error: QuireError) -> bytes:
    """The whole answer, in the form of all others."""
    body = failures.encode(error)
    lines = [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
    lines += [f"{name}: {value}".encode() for name, value in failures.headers(error).items() if name != "connection"]
    return STATUS_LINE[error.status] + b"\r\n".join(lines) + b"\r\n\r\n" + body
