"""uvicorn's HTTP protocol with limits that it lacks: the size of a request's head, the time to send it, and how much
may wait on one connection behind a request that is answered.

Knows: bytes before the body. Does not know: what is asked for.
"""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0
MAX_PIPELINED = 16  # requests that wait behind one that is answered, on one connection
MAX_PIPELINED_BYTES = 2**20  # of their bodies


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are too long, or do not come in time.

    Counted is what arrives before a head is complete, so a body that shares a packet with its head costs nothing.
    Requests behind one that is answered are read on, within limits: uvicorn stops reading there, and would not notice
    that its client has gone until the answer is whole.
    """

    _num_head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None
    _num_waiting_bytes = 0
    idle_since_s = 0.0  # on the loop's clock: when its last answer ended, or it was made

    @property
    def is_idle(self) -> bool:
        """True while neither a request nor a part of one is here."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.pipeline and not self._num_head_bytes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: its first head must come in time."""
        super().connection_made(transport)
        self.idle_since_s = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more: uvicorn tells the last request so, here all others hear it, too."""
        self._stop_timer()
        waiting = [cycle for cycle, _ in self.pipeline]
        for cycle in waiting if self._answered is None else [self._answered, *waiting]:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to an unfinished head, then parse."""
        super().data_received(data)
        if not self._in_head:
            self._num_head_bytes = 0
            return
        self._num_head_bytes += len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._give_up()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        self._read_on(0)

    def on_body(self, body: bytes) -> None:
        """A part of a body has come."""
        super().on_body(body)
        self._read_on(len(body))

    def on_response_complete(self) -> None:
        """An answer has ended."""
        self.idle_since_s = self.loop.time()
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _read_on(self, num_bytes: int) -> None:
        if not self.pipeline:
            self._num_waiting_bytes = 0
            return
        self._num_waiting_bytes += num_bytes
        if len(self.pipeline) > MAX_PIPELINED or self._num_waiting_bytes > MAX_PIPELINED_BYTES:
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
