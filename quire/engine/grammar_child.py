"""The grammar process: `python -m quire.engine.grammar_child READ_FD WRITE_FD MEMORY_FD`.

Masks come first. A new grammar is first compiled in a trial: a fork of this process, after 15 ms only where nobody else
computes, with an alarm on its processor time, its duration and its memory. Only what came through is compiled here,
beside the masks if it takes long. A trial begins when no other is in its first 15 ms; owners take turns, have one trial
at a time and a purse of processor time each, and whoever waits too long is told to come back. A grammar that a lost
process had compiled is tried no more, and paid for by nobody.

Knows: what it is asked, trials and their ends. Does not know: requests, steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quire.engine.grammar_credit import Credit
from quire.engine.grammar_trial import Trial
from quire.engine.grammars import load_matchers
from quire.engine.heap import give_back
from quire.engine.messages import FromGrammars, KeepGrammars, Prepare, Prepared
from quire.engine.wire import Decoder, encode
from quire.errors import Overloaded, QuireError
from quire.limits import COMPILE_WAIT_S
from quire.structured.grammar import Grammar, compile_grammar
from quire.structured.matchers import Matchers
from quire.structured.order import MaskOrder

PROCESS_NAME = "quire-grammars"
READ_BYTES = 2**18
LATER = "Try again in some seconds; grammars that are known already are served."
MAX_TRIALS = 2  # under way; with 4, all but one of them where nobody else computes, steps took 5 to 7 % longer
MAX_DYING = 8  # forks in all, those included that were ended and have not left yet
MAX_SUSPECTS = 4096
MAX_REFUSED = 512
TRIM_EVERY = 64  # compilations; left alone, the process grew by 0.35 MB a minute of new grammars
LOAD_NICE = 10  # the vocabulary is read while the first answers are computed
UNTIMED_S = 1.0  # of one that a lost process had tried
INLINE_S = 0.005  # what compiled faster in its trial is compiled between two steps' masks


class Keeper:
    """One process's work: answers by key, questions by owner, trials by descriptor, at most one compilation."""

    def __init__(self, matchers: Matchers, rows: memoryview, write_fd: int) -> None:
        self._matchers, self._rows, self._write_fd = matchers, rows, write_fd
        self._waiting: OrderedDict[str, deque[tuple[float, Prepare]]] = OrderedDict()
        self._trials: dict[int, Trial] = {}
        self._passed: deque[tuple[Prepare, float]] = deque()
        self._credit = Credit()
        self._refused: OrderedDict[bytes, QuireError] = OrderedDict()
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._compiling: Prepare | None = None
        self._done_read, self._done_write = os.pipe()
        self._compiled: Grammar | QuireError | None = None
        self._num_compiled = 0

    @property
    def watched(self) -> list[int]:
        """What else to wait for besides questions."""
        return [self._done_read, *self._trials]

    @property
    def patience_ms(self) -> float | None:
        """How long to wait at most before `go_on` has something to do: to calm a trial, or to send somebody away."""
        times = [trial.calm_at if trial.eager else trial.end_at for trial in self._living]
        times += [questions[0][0] + COMPILE_WAIT_S for questions in self._waiting.values()]
        return max(0.0, 1e3 * (min(times) - time.monotonic())) if times else None

    def take(self, message: object) -> None:
        """One message from the engine."""
        if isinstance(message, MaskOrder):
            self._send(self._matchers.obey(message, self._rows))
        elif isinstance(message, Prepare):
            constraint = message.constraint
            if (constraint.owner, constraint.grammar) in self._matchers.cache:
                self._send(Prepared(message.id))
            elif error := self._refused.get(_digest(constraint.grammar)):
                self._tell(message, error)
            elif message.is_known:
                self._passed.append((message, UNTIMED_S))
            else:
                self._waiting.setdefault(constraint.owner, deque()).append((time.monotonic(), message))

    def go_on(self, ready: list[int]) -> None:
        """See what has ended among `watched`, and begin what comes next."""
        if self._done_read in ready:
            os.read(self._done_read, 1)
            self._finish()
        for fd in self._trials.keys() & set(ready):
            self._judge(self._trials.pop(fd))
        now = time.monotonic()
        for trial in self._living:
            if trial.eager and trial.calm_at <= now:
                trial.calm()
            if trial.end_at <= now:
                self._tell(trial.question, trial.give_up())
        while self._passed and self._compiling is None:
            self._compile_for_use(*self._passed.popleft())
        self._send_away()
        while self._may_begin:
            owner = self._next_owner()
            if owner is None:
                return
            self._begin(owner)

    @property
    def _may_begin(self) -> bool:
        """Never beside a thread that compiles, which a fork would cut in the middle."""
        begun = self._living
        eager = [trial for trial in begun if trial.eager]
        return self._compiling is None and not eager and len(begun) < MAX_TRIALS and len(self._trials) < MAX_DYING

    @property
    def _living(self) -> list[Trial]:
        """Trials that somebody waits for: one that was ended may still take its time to leave."""
        return [trial for trial in self._trials.values() if not trial.is_given_up]

    def _next_owner(self) -> str | None:
        """Who waits longest of those who have no trial under way; of suspects no two."""
        busy = {trial.question.constraint.owner for trial in self._living}
        if not busy.isdisjoint(self._suspects):
            busy.update(self._suspects)
        return next((name for name in self._waiting if name not in busy), None)

    def _begin(self, owner: str) -> None:
        """His oldest question."""
        questions = self._waiting.pop(owner)
        _, message = questions.popleft()
        if questions:
            self._waiting[owner] = questions  # to the end of the line
        now = time.monotonic()
        if self._credit.left_s(owner, now) <= 0:
            self._tell(message, Overloaded("compiling grammars has taken all the time it may", hint=LATER))
            return
        trial = Trial(message, self._matchers.cache.vocabulary, now)
        self._trials[trial.fd] = trial
        if owner in self._suspects:
            trial.calm()

    def _send_away(self) -> None:
        """Those who have waited too long."""
        latest = time.monotonic() - COMPILE_WAIT_S
        for owner, questions in list(self._waiting.items()):
            while questions and questions[0][0] <= latest:
                _, message = questions.popleft()
                self._tell(message, Overloaded("too many grammars wait to be compiled", hint="Try again in a second."))
            if not questions:
                del self._waiting[owner]

    def _judge(self, trial: Trial) -> None:
        """A trial has ended; what came through is compiled again, here."""
        error, seconds = trial.outcome()
        owner, now = trial.question.constraint.owner, time.monotonic()
        self._credit.spend(owner, trial.cpu_s, now)
        if trial.is_costly or trial.is_given_up:
            self._suspect(owner)
        if trial.is_given_up:
            return  # its owner was told
        if error is None:
            self._suspects.pop(owner, None)
            self._credit.spend(owner, seconds, now)  # again, here
            self._passed.append((trial.question, seconds))
            return
        if trial.is_lasting:
            self._refuse(trial.question.constraint.grammar, error)
        self._tell(trial.question, error)

    def _compile_for_use(self, question: Prepare, seconds: float) -> None:
        self._compiling = question
        if seconds <= INLINE_S:
            self._compile(question.constraint.grammar)
            self._finish()
        else:
            threading.Thread(target=self._compile_beside, args=(question.constraint.grammar,)).start()

    def _refuse(self, text: str, error: QuireError) -> None:
        """Keep in mind that this one cannot be had: who sends it again is told at once, and costs nobody anything."""
        self._refused[_digest(text)] = error
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)

    def _suspect(self, owner: str) -> None:
        """Until one of his goes through, his trials run only where nobody else computes."""
        self._suspects[owner] = None
        if len(self._suspects) > MAX_SUSPECTS:
            self._suspects.popitem(last=False)

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
        self._num_compiled += 1
        if self._num_compiled % TRIM_EVERY == 0:
            give_back()
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


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _load_modestly(about: KeepGrammars) -> Matchers:
    """The vocabulary, read by a thread of low priority that ends: a priority cannot be raised again without rights."""

    def load() -> Matchers:
        with contextlib.suppress(OSError):  # where priorities cannot be had it is read all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOAD_NICE)
        return load_matchers(Path(about.folder), about.vocab_size, about.eos_ids)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(load).result()


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
                        keeper = Keeper(_load_modestly(message), rows, write_fd)
                    elif keeper is not None:
                        keeper.take(message)
            if keeper is not None:
                keeper.go_on(ready)
    except BrokenPipeError:
        return 0
    except QuireError as problem:  # a folder whose tokenizer cannot be read: the server says it too, and does not start
        print(f"{PROCESS_NAME}: {problem.message}", file=sys.stderr)
        return problem.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
