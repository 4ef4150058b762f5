"""A trial: a stranger's grammar compiled in a fork of the grammar process, which can be ended at any moment.

Knows: how a fork is bounded and how it ended. Does not know: who asked, or what becomes of the grammar.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from typing import NoReturn

from quire.engine.messages import Prepare
from quire.errors import QuireError, RequestError
from quire.limits import COMPILE_BYTES, COMPILE_CPU_S, COMPILE_WALL_S
from quire.structured.grammar import compile_grammar
from quire.structured.vocabulary import Vocabulary

EAGER_S = 0.015  # then it runs only where nobody else wants to
MAX_ANSWER = 4096
PAGE_BYTES = resource.getpagesize()


class Trial:
    """A fork that compiles one grammar. `fd` can be read when it has ended.

    It is `eager`, of the usual priority, until it is calmed, which the process that asks does at `calm_at`. When it has
    ended, `is_costly` says whether it had to be ended, and `is_lasting` whether the same grammar would end like that
    again: not where it was only a matter of waiting.
    """

    def __init__(self, question: Prepare, vocabulary: Vocabulary, now: float) -> None:
        self.question = question
        self.calm_at, self.end_at = now + EAGER_S, now + COMPILE_WALL_S
        self.is_given_up = False
        self.eager = True
        self.is_lasting = True
        self.is_costly = False
        self.cpu_s = 0.0
        self.fd, write_fd = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _compile_and_leave(question.constraint.grammar, vocabulary, write_fd)
        os.close(write_fd)

    def calm(self) -> None:
        """From now on it runs where nobody else wants to."""
        self.eager = False
        with contextlib.suppress(OSError):  # it has ended, or the kernel has no such policy
            os.sched_setscheduler(self._pid, os.SCHED_IDLE, os.sched_param(0))

    def give_up(self) -> QuireError:
        """End it, and say why; where nobody lets it run, it also takes its time to leave."""
        self.is_given_up = True
        os.kill(self._pid, signal.SIGKILL)
        return _ended_by(signal.SIGALRM)

    def outcome(self) -> tuple[QuireError | None, float]:
        """Why it failed, if it did, and the processor time that compiling took in seconds; only when it has ended."""
        parts = []
        while data := os.read(self.fd, MAX_ANSWER):
            parts.append(data)
        os.close(self.fd)
        _, status, used = os.wait4(self._pid, 0)
        self.cpu_s = used.ru_utime + used.ru_stime
        kind, _, rest = b"".join(parts).decode("utf-8", "replace").partition(" ")
        if os.WIFSIGNALED(status):
            self.is_costly = True
            self.is_lasting = os.WTERMSIG(status) not in (signal.SIGALRM, signal.SIGKILL)
            return _ended_by(os.WTERMSIG(status)), 0.0
        if kind == "ok":
            return None, float(rest)
        return RequestError(rest or "the grammar cannot be compiled", code="invalid_grammar"), 0.0


def _compile_and_leave(text: str, vocabulary: Vocabulary, write_fd: int) -> NoReturn:
    """In the fork: compile within the limits, say how it went, and leave without any of Python's farewells."""
    answer = b"failed the compiler made a mistake"
    try:
        _bound()
        start = time.process_time()
        compile_grammar(text, vocabulary)
        answer = f"ok {time.process_time() - start:.6f}".encode()
    except QuireError as error:
        answer = b"refused " + error.message.encode("utf-8", "replace")[:MAX_ANSWER]
    except MemoryError:
        answer = b"refused the grammar takes too much memory to compile"
    finally:
        with contextlib.suppress(OSError):
            os.write(write_fd, answer)
        os._exit(0)


def _bound() -> None:
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)  # ends the process wherever it is, native code included
    signal.setitimer(signal.ITIMER_PROF, COMPILE_CPU_S)
    signal.setitimer(signal.ITIMER_REAL, 2 * COMPILE_WALL_S)  # it is given up long before
    with open("/proc/self/statm", encoding="ascii") as file:
        now_bytes = int(file.read().split()[0]) * PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + COMPILE_BYTES, now_bytes + COMPILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # what a dying compiler prints is told by how it ends


def _ended_by(number: int) -> RequestError:
    reasons = {
        signal.SIGPROF: f"takes more than {COMPILE_CPU_S} s of processor time to compile",
        signal.SIGALRM: f"is not compiled within {COMPILE_WALL_S} s",
        signal.SIGABRT: "takes too much memory to compile",
    }
    reason = reasons.get(signal.Signals(number), "brings its compiler down")
    return RequestError(f"the grammar {reason}", hint="Make it smaller.", code="grammar_too_costly")
