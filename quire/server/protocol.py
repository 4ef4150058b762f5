"""uvicorn's HTTP protocol with two limits that it lacks: the size of a request's head, and the time to send it.

Knows: bytes before the body. Does not know: what is asked for.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are too long, or do not come in time.

    Counted is what arrives before a head is complete, so a body that shares a packet with its head costs nothing.
    """

    _num_head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
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
        """Nothing to wait for any more."""
        self._stop_timer()
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

    def on_response_complete(self) -> None:
        """An answer has ended."""
        self.idle_since_s = self.loop.time()
        super().on_response_complete()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
