"""Open connections that go from a server to its successor, over the Unix socket between the two.

A connection that is kept and silent may carry a request any moment, and whoever closes it then fails that request.
Passed on, it stays open, and what has come and was not read is read by whoever has it now.

Knows: descriptors in flight, idle connections. Does not know: when one is passed on, or what is asked on it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from quire.server.protocol import HttpProtocol

PASSED = b"connection"


def pass_on(channel: socket.socket, connection: HttpProtocol) -> bool:
    """Give an idle connection away, within one turn of the loop; False where that cannot be, and it stays ours.

    What TLS has agreed upon is in this process's memory and cannot go with it, nor can what is not sent yet.
    """
    transport = connection.transport
    is_encrypted = transport.get_extra_info("sslcontext") is not None
    if is_encrypted or not connection.is_open or transport.get_write_buffer_size():
        return False
    try:
        socket.send_fds(channel, [PASSED], [transport.get_extra_info("socket").fileno()])
    except OSError:  # the successor has gone, or takes no more now
        return False
    transport.abort()  # our descriptor of it
    return True


class Taking:
    """Takes connections from `channel` as they come, until its other end is closed; `make` makes their protocols."""

    def __init__(self, channel: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        self._channel, self._make = channel, make
        self._coming: set[asyncio.Task[object]] = set()
        channel.setblocking(False)
        self._here = asyncio.get_running_loop()
        self._here.add_reader(channel.fileno(), self._take)

    def close(self) -> None:
        """Take no more."""
        if self._channel.fileno() >= 0:
            self._here.remove_reader(self._channel.fileno())
            self._channel.close()

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                said, fds, _, _ = socket.recv_fds(self._channel, len(PASSED), 1, socket.MSG_CMSG_CLOEXEC)
                if not said:
                    self.close()
                    return
                for fd in fds:
                    self._serve(socket.socket(fileno=fd))

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task: asyncio.Task[object] = self._here.create_task(self._here.connect_accepted_socket(self._make, connection))
        self._coming.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[object]) -> None:
        self._coming.discard(task)
        with suppress(asyncio.CancelledError):
            task.exception()  # its client may have gone on the way
