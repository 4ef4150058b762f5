"""An engine in a process of its own: `python -m quire.engine` over two inherited pipes.

Knows: how the child is started, watched and ended. Does not know: what it computes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from quire.engine.client import EngineClient
from quire.engine.messages import UNBOUND, FromEngine, Start, ToEngine
from quire.engine.wire import Decoder, encode
from quire.plan import Contract, Plan

LEAVE_S = 5.0  # how long a child may take to leave once its pipe is closed


class ProcessLink:
    """The client's side of the pipes. The child starts at once, so that it loads while its parent still imports."""

    def __init__(self, plan: Plan, folder: Path, contract: Contract = UNBOUND) -> None:
        child_reads, self._write_fd = os.pipe()
        self._read_fd, child_writes = os.pipe()
        command = [sys.executable, "-m", "quire.engine", str(child_reads), str(child_writes)]
        self.process = subprocess.Popen(command, pass_fds=(child_reads, child_writes), stdin=subprocess.DEVNULL)
        os.close(child_reads)
        os.close(child_writes)
        os.write(
            self._write_fd, encode(Start(plan, str(folder), contract))
        )  # under a page: an empty pipe takes it whole
        self._transports: list[asyncio.Transport] = []

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """Attach both pipes to the running asyncio loop."""
        here = asyncio.get_running_loop()
        reader = _Reader(on_message, lambda: on_lost(self._describe_end()))
        await here.connect_read_pipe(lambda: reader, os.fdopen(self._read_fd, "rb", 0))
        write_transport, _ = await here.connect_write_pipe(
            lambda: asyncio.Protocol(), os.fdopen(self._write_fd, "wb", 0)
        )
        self._transports = [write_transport]  # type: ignore[list-item]

    def send(self, message: ToEngine) -> None:
        """Queue one frame for the pipe; the transport writes it when there is room."""
        self._transports[0].write(encode(message))

    async def close(self) -> None:
        """Close the pipe, which is the order to leave; kill a child that does not."""
        for transport in self._transports:
            transport.close()
        try:
            await asyncio.to_thread(self.process.wait, LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)

    def _describe_end(self) -> str:
        try:
            return f"exit code {self.process.wait(0.5)}"
        except subprocess.TimeoutExpired:
            return "its pipe was closed"


class _Reader(asyncio.Protocol):
    def __init__(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[], None]) -> None:
        self._on_message, self._on_lost = on_message, on_lost
        self._decoder = Decoder()

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._on_message(message)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()


def spawn(plan: Plan, folder: Path, contract: Contract = UNBOUND) -> EngineClient:
    """Start an engine process for `plan`; `await client.start()` waits until it serves."""
    return EngineClient(ProcessLink(plan, folder, contract))
