"""Where a loop reads its messages and leaves its reports: one protocol, and the pipe that implements it.

Knows: file descriptors and frames. Does not know: what the messages ask for.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Protocol

from quire.engine.messages import FromEngine, ToEngine
from quire.engine.wire import Decoder, encode

READ_BYTES = 2**18
IDLE_S = 1.0  # between two beats of a loop that has nothing to do


class Mailbox(Protocol):
    """The loop's side of a conversation. `is_open` turns False when the other side has gone."""

    is_open: bool

    def receive(self, wait: bool) -> list[ToEngine]:
        """Messages that have come; with `wait`, sleep until there is one, the other side goes, or `IDLE_S` is over."""
        ...

    def send(self, message: FromEngine) -> None:
        """Hand a message over."""
        ...


class PipeMailbox:
    """Two inherited pipe ends. A closed pipe is the order to leave. Several threads may send."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.is_open = True
        self._read_fd, self._write_fd = read_fd, write_fd
        self._decoder = Decoder()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN)

    def receive(self, wait: bool) -> list[ToEngine]:
        """All messages in the pipe; blocks without burning a core if `wait` and there is none, for `IDLE_S` at most."""
        messages: list[ToEngine] = []
        while self.is_open and self._poll.poll(1000 * IDLE_S if wait and not messages else 0):
            data = os.read(self._read_fd, READ_BYTES)
            self.is_open = bool(data)
            messages.extend(self._decoder.feed(data))  # type: ignore[arg-type]
        return messages

    def send(self, message: FromEngine) -> None:
        """Write one frame whole; a reader that has gone closes the mailbox."""
        data = memoryview(encode(message))
        try:
            with self._sending:
                while data:
                    data = data[os.write(self._write_fd, data) :]
        except BrokenPipeError:
            self.is_open = False
