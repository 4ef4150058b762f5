"""Another server of the same arguments, on the same socket: started, and waited for until it answers.

    this process   listening socket, a Unix socket's end  -->  successor   loads, listens on the same socket
                   <--  one line                                           "ready", or the end if it gives up
                   connections that are kept open  -->

Knows: processes, descriptors, our own command line. Does not know: what is done once it answers, or has failed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from quire.errors import InvalidSetting

READY = b"ready\n"
LEAVE_S = 5.0  # how long one that is not wanted any more may take to leave


class Successor:
    """One that has been started. Raises `OSError` if there is no such program."""

    def __init__(self, command: Sequence[str], listener: socket.socket) -> None:
        """`command` without `--listen-fd` and `--ready-fd`: they are added."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        fds = (listener.fileno(), theirs.fileno())
        words = with_options(command, {"--listen-fd": str(fds[0]), "--ready-fd": str(fds[1])})
        try:
            self.process = subprocess.Popen(words, pass_fds=fds, stdin=subprocess.DEVNULL)
        except OSError:
            self.channel.close()
            raise
        finally:
            theirs.close()

    async def answers(self) -> bool:
        """True once it answers requests, False once it has ended without."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.channel, len(READY)) == READY
        except ConnectionError:
            return False

    async def leave(self) -> int:
        """Let it go, if it is still there; its exit code."""
        self.channel.close()
        self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)


def check_ready_fd(fd: int | None) -> None:
    """Refuse a descriptor that cannot be told. What this process starts does not inherit it."""
    if fd is None:
        return
    try:
        os.set_inheritable(fd, False)
    except OSError as problem:
        raise InvalidSetting("--ready-fd is no open descriptor", got=fd, hint=problem.strerror) from problem


def tell_ready(fd: int) -> socket.socket | None:
    """Tell whoever waits at the other end of `fd` that requests are answered; he may have gone.

    A predecessor waits at a socket, and passes his connections through it: that is returned. Anything else is closed.
    """
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        channel = socket.socket(fileno=fd)
        with suppress(ConnectionError):
            channel.send(READY)
        return channel
    with suppress(BrokenPipeError):
        os.write(fd, READY)
    os.close(fd)
    return None


def with_options(command: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """`command` with these options right behind `serve`, and without those of the same name that it had."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in options:
            kept.append(word)
        elif not equals:
            next(words, None)
    place = kept.index("serve") + 1
    return [*kept[:place], *[f"{name}={value}" for name, value in options.items()], *kept[place:]]
