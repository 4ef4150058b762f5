"""The engine's own process: `python -m quire.engine READ_FD WRITE_FD`.

Knows: how to come up, serve and leave; a closed pipe is the order to leave. Does not know: HTTP, text, or the network.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from pathlib import Path

from quire.engine import loop
from quire.engine.build import build_engine
from quire.engine.garbage import Sweeper, settle_in
from quire.engine.grammar_process import ProcessKeeper
from quire.engine.mailbox import PipeMailbox
from quire.engine.messages import Failed, Loading, Ready, Start
from quire.engine.warm_up import warm_up
from quire.errors import InternalError, QuireError

PROCESS_NAME = "quire-engine"


def main(arguments: list[str]) -> int:
    """Read `Start`, load, say `Ready`, serve until the pipe closes. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the front decides when we leave
    with contextlib.suppress(OSError):  # a kernel without /proc shows us as python: no harm done
        Path("/proc/self/comm").write_text(PROCESS_NAME)
    mailbox = PipeMailbox(int(arguments[0]), int(arguments[1]))
    try:
        _serve(mailbox)
    except QuireError as problem:
        mailbox.send(Failed(type(problem).__name__, problem.message))
        return problem.exit_code
    except Exception:  # noqa: BLE001 - the last door: said aloud on both sides, then the process ends
        traceback.print_exc()
        mailbox.send(Failed(InternalError.__name__, "the engine process met a mistake of its own; see its log"))
        return 1
    return 0


def _serve(mailbox: PipeMailbox) -> None:
    messages = mailbox.receive(wait=True)
    if not mailbox.is_open:
        return
    start = messages[0]
    if not isinstance(start, Start):
        raise InternalError("the first message to an engine is not Start", got=type(start).__name__)
    begin = time.monotonic()
    folder = Path(start.folder)
    built = build_engine(
        start.plan, folder, lambda done, total: mailbox.send(Loading(done, total)), start.contract, ProcessKeeper
    )
    warm_up(built.engine, start.plan, time.monotonic)
    settle_in()
    mailbox.send(Ready(built.isa, built.kernels, time.monotonic() - begin, built.notes, built.receipt))
    built.grammars.warm()
    loop.run(built.engine, mailbox, time.monotonic, Sweeper())
    built.grammars.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
