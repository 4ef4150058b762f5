"""The grammar process: `python -m quire.engine.grammar_child READ_FD WRITE_FD MEMORY_FD`.

Masks come first. A new grammar is first compiled in a trial: a fork of this process, after 15 ms only where nobody else
computes, with an alarm on its processor time, its duration and its memory. Only what came through is compiled here,
beside the masks if it takes long. One trial runs at a time, owners take turns and have a purse of processor time each,
and whoever waits too long is told to come back.

Knows: what it is asked, trials and their ends. Does not know: requests, steps.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path

from quire.engine.grammar_credit import Credit
from quire.engine.grammar_trial import EAGER_S, Trial
from quire.engine.grammars import load_matchers
from quire.engine.messages import FromGrammars, KeepGrammars, Prepare, Prepared
from quire.engine.wire import Decoder, encode
from quire.errors import Overloaded, QuireError
from quire.structured.grammar import Grammar, compile_grammar
from quire.structured.matchers import Matchers
from quire.structured.order import MaskOrder

PROCESS_NAME = "quire-grammars"
READ_BYTES = 2**18
MAX_WAIT_S = 0.7  # before its trial begins: with the trial's own limit 1.9 s
LATER = "Try again in some seconds; grammars that are known already are served."
INLINE_S = 0.005  # what compiled faster in its trial is compiled between two steps' masks


class Keeper:
    """One process's work: answers by key, questions by owner, at most one trial and one compilation under way."""

    def __init__(self, matchers: Matchers, rows: memoryview, write_fd: int) -> None:
        self._matchers, self._rows, self._write_fd = matchers, rows, write_fd
        self._waiting: OrderedDict[str, deque[tuple[float, Prepare]]] = OrderedDict()
        self._trial: Trial | None = None
        self._trial_since = 0.0
        self._credit = Credit()
        self._compiling: Prepare | None = None
        self._done_read, self._done_write = os.pipe()
        self._compiled: Grammar | QuireError | None = None

    @property
    def watched(self) -> list[int]:
        """What else to wait for besides questions."""
        return [self._done_read] + ([self._trial.fd] if self._trial is not None else [])

    @property
    def patience_ms(self) -> float | None:
        """How long to wait at most before `go_on` has something to do: an eager trial is calmed in time."""
        if self._trial is None or not self._trial.eager:
            return None
        return max(0.0, 1e3 * (self._trial_since + EAGER_S - time.monotonic()))

    def take(self, message: object) -> None:
        """One message from the engine."""
        if isinstance(message, MaskOrder):
            self._send(self._matchers.obey(message, self._rows))
        elif isinstance(message, Prepare):
            constraint = message.constraint
            if (constraint.owner, constraint.grammar) in self._matchers.cache:
                self._send(Prepared(message.id))
            else:
                self._waiting.setdefault(constraint.owner, deque()).append((time.monotonic(), message))

    def go_on(self, ready: list[int]) -> None:
        """See what has ended among `watched`, and begin what comes next."""
        if self._done_read in ready:
            os.read(self._done_read, 1)
            self._finish()
        if self._trial is not None and self._trial.fd in ready:
            self._judge(self._trial)
        if self._trial is not None and self._trial.eager and self.patience_ms == 0.0:
            self._trial.calm()
        while self._waiting and self._trial is None and self._compiling is None:
            self._begin()

    def _begin(self) -> None:
        """The oldest question of the owner whose turn it is."""
        owner, questions = self._waiting.popitem(last=False)
        asked_at, message = questions.popleft()
        if questions:
            self._waiting[owner] = questions  # to the end of the line
        now = self._trial_since = time.monotonic()
        if now - asked_at > MAX_WAIT_S:
            self._tell(message, Overloaded("too many grammars wait to be compiled", hint="Try again in a second."))
            return
        if self._credit.left_s(owner, now) <= 0:
            self._tell(message, Overloaded("compiling grammars has taken all the time it may", hint=LATER))
            return
        self._trial = Trial(message, self._matchers.cache.vocabulary)

    def _judge(self, trial: Trial) -> None:
        """A trial has ended; what came through is compiled again, here."""
        self._trial = None
        error, seconds = trial.outcome()
        owner, now = trial.question.constraint.owner, time.monotonic()
        self._credit.spend(owner, trial.cpu_s, now)
        if error is not None:
            self._tell(trial.question, error)
            return
        self._credit.spend(owner, seconds, now)  # again, here
        self._compiling = trial.question
        if seconds <= INLINE_S:
            self._compile(trial.question.constraint.grammar)
            self._finish()
        else:
            threading.Thread(target=self._compile_beside, args=(trial.question.constraint.grammar,)).start()

    def _compile_beside(self, text: str) -> None:
        self._compile(text)
        os.write(self._done_write, b".")

    def _compile(self, text: str) -> None:
        try:
            self._compiled = compile_grammar(text, self._matchers.cache.vocabulary)
        except QuireError as error:
            self._compiled = error

    def _finish(self) -> None:
        question, compiled = self._compiling, self._compiled
        self._compiling = self._compiled = None
        if question is None or compiled is None:
            return
        if isinstance(compiled, Grammar):
            self._matchers.cache.put(question.constraint.owner, compiled)
            self._send(Prepared(question.id))
        else:
            self._tell(question, compiled)

    def _tell(self, question: Prepare, error: QuireError) -> None:
        self._send(Prepared(question.id, type(error).__name__, error.message))

    def _send(self, message: FromGrammars) -> None:
        data = memoryview(encode(message))
        while data:
            data = data[os.write(self._write_fd, data) :]


def main(arguments: list[str]) -> int:
    """Serve until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the engine decides when we leave
    with contextlib.suppress(OSError):  # a kernel without /proc shows us as python: no harm done
        Path("/proc/self/comm").write_text(PROCESS_NAME)
    read_fd, write_fd, memory_fd = map(int, arguments)
    rows = memoryview(mmap.mmap(memory_fd, os.fstat(memory_fd).st_size))
    decoder, keeper = Decoder(), None
    poll = select.poll
    try:
        while True:
            watched = [read_fd, *(keeper.watched if keeper is not None else [])]
            waiter = poll()
            for fd in watched:
                waiter.register(fd, select.POLLIN)
            ready = [fd for fd, _ in waiter.poll(keeper.patience_ms if keeper is not None else None)]
            if read_fd in ready:
                data = os.read(read_fd, READ_BYTES)
                if not data:
                    return 0
                for message in decoder.feed(data):
                    if isinstance(message, KeepGrammars):
                        about = message
                        matchers = load_matchers(Path(about.folder), about.vocab_size, about.eos_ids)
                        keeper = Keeper(matchers, rows, write_fd)
                    elif keeper is not None:
                        keeper.take(message)
            if keeper is not None:
                keeper.go_on(ready)
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
