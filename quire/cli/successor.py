"""Another server of the same arguments, on the same socket: started, and waited for until it answers.

    this process   listening socket, a pipe's end  -->  successor   loads, listens on the same socket
                   <--  one line                                    "ready", or the pipe's end if it gives up

Knows: processes, descriptors, our own command line. Does not know: what is done once it answers, or has failed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence

from quire.errors import InvalidSetting

READY = b"ready\n"
LEAVE_S = 5.0  # how long one that is not wanted any more may take to leave


class Successor:
    """One that has been started. Raises `OSError` if there is no such program."""

    def __init__(self, command: Sequence[str], listener: socket.socket) -> None:
        """`command` without `--listen-fd` and `--ready-fd`: they are added."""
        self._ready_fd, told_fd = os.pipe()
        fds = {"--listen-fd": str(listener.fileno()), "--ready-fd": str(told_fd)}
        try:
            self.process = subprocess.Popen(
                with_options(command, fds), pass_fds=(listener.fileno(), told_fd), stdin=subprocess.DEVNULL
            )
        except OSError:
            os.close(self._ready_fd)
            raise
        finally:
            os.close(told_fd)

    async def answers(self) -> bool:
        """True once it answers requests, False once it has ended without."""
        said = asyncio.StreamReader()
        here = asyncio.get_running_loop()
        transport, _ = await here.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(said), os.fdopen(self._ready_fd, "rb", 0)
        )
        try:
            return await said.readline() == READY
        finally:
            transport.close()

    async def leave(self) -> int:
        """Let it go, if it is still there; its exit code."""
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


def tell_ready(fd: int) -> None:
    """Tell whoever waits at the other end of `fd` that requests are answered; he may have gone."""
    try:
        os.write(fd, READY)
    except BrokenPipeError:
        return
    finally:
        os.close(fd)


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
