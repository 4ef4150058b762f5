"""An engine in a process of its own: `python -m quire.engine` over two inherited pipes and a page of memory.

Knows: how the child is started, watched and ended. Does not know: what it computes, or who replaces it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quire.engine import body
from quire.engine.body import DUMP_SIGNAL, Body
from quire.engine.children import command
from quire.engine.client import EngineClient
from quire.engine.messages import UNBOUND, FromEngine, Start, ToEngine
from quire.engine.pulse import Pulse
from quire.engine.supervisor import supervised
from quire.engine.wire import Decoder, encode
from quire.plan import Contract, Plan

LEAVE_S = 5.0  # how long a child may take to leave once its pipe is closed
MODULE = "quire.engine"


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended. `is_outside`: by somebody's signal, which no request can send. `remedy`: what helps."""

    how: str
    is_outside: bool
    remedy: str = ""


class ProcessLink:
    """The client's side of the pipes. The child starts at once, so that it loads while its parent still imports.

    `module` is what is started: ours, or one that behaves as ours does but for a fault.
    """

    def __init__(self, plan: Plan, folder: Path, contract: Contract = UNBOUND, module: str = MODULE) -> None:
        child_reads, write_fd = os.pipe()
        read_fd, child_writes = os.pipe()
        self._reads, self._writes = os.fdopen(read_fd, "rb", 0), os.fdopen(write_fd, "wb", 0)
        self.pulse = Pulse.create()
        # The kernel ends a child with the thread that started it, which is of use where that is the whole process.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        fds = (child_reads, child_writes, self.pulse.fd)
        self._mapped = " or ".join(filter(None, [str(folder), plan.quantization_cache]))
        self._num_oom_kills = body.num_oom_kills()
        self.process = subprocess.Popen(command(module, (*fds, parent)), pass_fds=fds, stdin=subprocess.DEVNULL)
        os.close(child_reads)
        os.close(child_writes)
        self._writes.write(encode(Start(plan, str(folder), contract)))  # under a page: an empty pipe takes it whole
        self._transports: list[asyncio.BaseTransport] = []
        self._writer: asyncio.WriteTransport | None = None
        self._is_killed_here = self._is_closed = False

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """Attach both pipes to the running asyncio loop."""
        here = asyncio.get_running_loop()
        reader = _Reader(on_message, lambda: on_lost("its pipe was closed"))
        reading, _ = await here.connect_read_pipe(lambda: reader, self._reads)
        self._transports = [reading]
        self._writer, _ = await here.connect_write_pipe(lambda: asyncio.Protocol(), self._writes)
        self._transports.append(self._writer)

    def send(self, message: ToEngine) -> None:
        """Queue one frame for the pipe; the transport writes it when there is room. To one that has gone, nothing."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(message))

    def look(self) -> Body | None:
        """What the machine says of the process."""
        return body.look(self.process.pid)

    def dump(self) -> None:
        """Ask it to write down where its threads stand. A stopped process answers nothing before it is continued."""
        self.process.send_signal(DUMP_SIGNAL)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it now."""
        self._is_killed_here = True
        self.process.kill()

    async def ended(self) -> End:
        """Wait until the process has ended and has given its memory back; one that only closed its pipe is killed."""
        await self._left(1.0)
        code = self.process.returncode
        if code >= 0:
            return End(f"exit code {code}", is_outside=False)
        number = signal.Signals(-code)
        if number == signal.SIGBUS:
            how = f"killed by {number.name}: a file that was mapped has been cut, or its disk failed"
            return End(how, is_outside=False, remedy=f"Restore {self._mapped}, and start again")
        return End(f"killed by {number.name}", self._is_outside(number))

    async def close(self) -> None:
        """Close the pipe, which is the order to leave; kill a child that does not."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._writer is None:
            self._writes.close()
        else:
            self._writer.close()
        await self._left(LEAVE_S)
        for transport in self._transports:
            transport.close()
        if not self._transports:
            self._reads.close()
        self.pulse.close()

    async def _left(self, within_s: float) -> None:
        try:
            await asyncio.to_thread(self.process.wait, within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            await asyncio.to_thread(self.process.wait)

    def _is_outside(self, number: signal.Signals) -> bool:
        """Whether somebody else sent it: a machine without memory left kills, too, and it may be a request's doing."""
        if self._is_killed_here:
            return False
        if number == signal.SIGKILL:
            return self._num_oom_kills is not None and body.num_oom_kills() == self._num_oom_kills
        return number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class _Reader(asyncio.Protocol):
    def __init__(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[], None]) -> None:
        self._on_message, self._on_lost = on_message, on_lost
        self._decoder = Decoder()

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._on_message(message)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()


def spawn(plan: Plan, folder: Path, contract: Contract = UNBOUND, module: str = MODULE) -> EngineClient:
    """Start an engine process for `plan`; `await client.start()` waits until it serves. One that dies is replaced."""
    return supervised(partial(ProcessLink, plan, folder, contract, module))
