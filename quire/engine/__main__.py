"""The engine's own process: `python -m quire.engine READ_FD WRITE_FD PULSE_FD PARENT`.

Knows: how to come up, serve and leave; a closed pipe is the order to leave. Does not know: HTTP, text, or the network.

Another module may be started in its place that calls `main` with an `alter` of its own: a build with a fault in it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from quire.engine import loop
from quire.engine.body import DUMP_SIGNAL
from quire.engine.build import Built, build_engine, make_examiner
from quire.engine.garbage import Sweeper, settle_in
from quire.engine.grammar_process import ProcessKeeper
from quire.engine.mailbox import PipeMailbox
from quire.engine.messages import Failed, Loading, Ready, Start, ToEngine
from quire.engine.orphan import leave_with, watch_pipe
from quire.engine.pulse import Phase, Pulse
from quire.engine.pulsing import PulsingRunner
from quire.engine.warm_up import warm_up
from quire.errors import InternalError, NotEnoughMemory, QuireError

PROCESS_NAME = "quire-engine"


def main(arguments: list[str], alter: Callable[[Built], None] | None = None) -> int:
    """Read `Start`, load, say `Ready`, serve until the pipe closes. Returns the exit code.

    `alter` gets the engine before it serves.
    """
    read_fd, write_fd, pulse_fd, parent = map(int, arguments)
    leave_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the front decides when we leave
    if sys.stderr is not None:
        faulthandler.enable()
        faulthandler.register(DUMP_SIGNAL, all_threads=True)  # who stands still is asked where, before it is ended
    with contextlib.suppress(OSError):  # a kernel without /proc shows us as python: no harm done
        Path("/proc/self/comm").write_text(PROCESS_NAME)
    watch_pipe(read_fd)
    mailbox = PipeMailbox(read_fd, write_fd)
    try:
        _serve(mailbox, Pulse.inherited(pulse_fd), alter)
    except QuireError as problem:
        mailbox.send(Failed(type(problem).__name__, problem.message))
        return problem.exit_code
    except Exception:  # noqa: BLE001 - the last door: said aloud on both sides, then the process ends
        traceback.print_exc()
        mailbox.send(Failed(InternalError.__name__, "the engine process met a mistake of its own; see its log"))
        return 1
    return 0


def _serve(mailbox: PipeMailbox, pulse: Pulse, alter: Callable[[Built], None] | None) -> None:
    messages: list[ToEngine] = []
    while mailbox.is_open and not messages:
        messages = mailbox.receive(wait=True)
    if not messages:
        return
    start = messages[0]
    if not isinstance(start, Start):
        raise InternalError("the first message to an engine is not Start", got=type(start).__name__)
    begin = time.monotonic()
    folder = Path(start.folder)

    def progress(done: int, total: int) -> None:
        pulse.beat(time.monotonic(), Phase.LOADING)
        mailbox.send(Loading(done, total))

    try:
        built = build_engine(start.plan, folder, progress, start.contract, ProcessKeeper)
    except MemoryError:
        raise NotEnoughMemory(
            "the system gives this process less memory than the plan takes",
            got=f"{start.plan.kv_bytes / 2**20:.0f} MiB of KV cache in the plan",
            hint="Lower --kv-cache-memory-bytes, or raise the limit (`ulimit -v`).",
        ) from None
    engine = built.engine
    examiner = engine.examiner = make_examiner(engine, start.plan, time.monotonic)
    if alter is not None:
        alter(built)
    engine.runner = PulsingRunner(engine.runner, engine.scheduler, pulse, time.monotonic)
    warm_up(engine, start.plan, time.monotonic)
    settle_in()
    pulse.forget()
    pulse.beat(time.monotonic(), Phase.IDLE)
    notes = (*built.notes, *examiner.notes)
    mailbox.send(Ready(built.isa, built.kernels, time.monotonic() - begin, notes, built.receipt))
    for begun in examiner.periods:
        mailbox.send(begun)
    built.grammars.warm()
    loop.run(engine, mailbox, time.monotonic, Sweeper(), pulse)
    built.grammars.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
