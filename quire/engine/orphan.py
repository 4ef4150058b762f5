"""What an engine does when its front has died: it leaves within a second, even in the middle of a long step.

    Linux        the kernel kills it together with the thread that started it (PR_SET_PDEATHSIG)
    everywhere   a thread sees the pipe hang up; who has not left by itself after `GRACE_S` is ended there. It needs the
                 interpreter for a moment, which every kernel of ours lets go of while it computes

Knows: the parent, the pipe. Does not know: what is computed meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

GRACE_S = 0.5
PR_SET_PDEATHSIG = 1
ORPHANED = 3  # exit code


def leave_with(parent: int) -> bool:
    """End this process when the thread that started it ends; whether the kernel does that. `parent` 0 asks for nothing.

    A parent that died before this was said is noticed here.
    """
    if not parent or not sys.platform.startswith("linux"):
        return False
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    is_set = prctl is not None and prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if os.getppid() != parent:
        os._exit(ORPHANED)
    return is_set


def watch_pipe(read_fd: int, leave: Callable[[int], object] = os._exit, grace_s: float = GRACE_S) -> threading.Thread:
    """See from a thread of its own that nobody holds the other end of `read_fd` any more."""

    def watch() -> None:
        poll = select.poll()
        poll.register(read_fd, 0)  # errors and hang-ups alone
        poll.poll()
        time.sleep(grace_s)
        leave(ORPHANED)

    thread = threading.Thread(target=watch, name="quire-orphan", daemon=True)
    thread.start()
    return thread
