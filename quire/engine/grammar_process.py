"""Grammars kept in a process of their own: the engine's end of the pipes.

    engine   Prepare, MaskOrder  -->  process   vocabulary, compiled grammars, matchers
             <--  Prepared, Masked              masks, written into memory that both see

Building a vocabulary takes a second or two without letting any other thread run, and a stranger's grammar may bring
its compiler down: neither may happen beside the loop that everybody waits for.

Knows: how the process is started, watched and asked. Does not know: grammars.
"""

from __future__ import annotations

import mmap
import os
import queue
import select
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from quire.engine import body
from quire.engine.children import command
from quire.engine.grammars import Told
from quire.engine.messages import FromGrammars, KeepGrammars, Prepare, Prepared, ToGrammars
from quire.engine.wire import Decoder, encode, rebuild
from quire.errors import ServiceError
from quire.request import Constraint
from quire.step import FORM_LOST
from quire.structured.order import Masked, MaskOrder

Lost = Callable[[], None]

READ_BYTES = 2**16
MASK_WAIT_S = 5.0  # longer than any mask within its limits; then the process counts as lost
GONE = "the grammar process has gone away"
MOST_ASKED = 3  # processes that are asked to compile one grammar, where all of them are lost before they answer
LOOK_S = 0.5
MOST_STOPPED = 2  # looks in a row that find it stopped while somebody waits for it: then it is ended


class ProcessKeeper:
    """Grammars in another process. One that dies, or is stopped, is replaced for the next who needs one.

    What it held is lost: rows of answers that it knew fail with `FORM_LOST`, at once, and whoever asked for them opens
    them again; grammars that it was compiling are asked of the next one.
    """

    def __init__(self, folder: Path, vocab_size: int, eos_ids: tuple[int, ...], num_rows: int) -> None:
        num_bytes = num_rows * (-(-vocab_size // 32) * 4)
        self._memory_fd = os.memfd_create("quire-masks")
        os.ftruncate(self._memory_fd, num_bytes)
        self._rows = memoryview(mmap.mmap(self._memory_fd, num_bytes))
        self._about = KeepGrammars(str(folder), vocab_size, eos_ids)
        self._lock = threading.Lock()
        self._is_closed = False
        self._child: _Child | None = None
        self._fed: _Child | None = None  # the one that knows of all answers that were opened
        self._ordered: MaskOrder | None = None

    @property
    def rows(self) -> memoryview:
        """All masks, one row after another."""
        return self._rows

    def warm(self) -> None:
        """Start the process, which reads its vocabulary first of all."""
        self._living()

    def prepare(self, constraint: Constraint, told: Told, is_known: bool = False) -> None:
        """Send it over; `told` is called by the thread that reads the answers."""
        self._ask(constraint, told, is_known, MOST_ASKED)

    def begin(self, order: MaskOrder) -> None:
        """Send it over; to one that knows nothing of these answers, or still reads its vocabulary, nothing."""
        self.wait()  # nothing is under way unless the last step drew nothing
        self._ordered = order
        child = self._living()
        if child is self._fed or (child.has_spoken and _opens_all(order)):
            self._fed = child
            child.send(order)
        else:
            self._fed = None

    def wait(self) -> Masked:
        """Wait for the answer."""
        order, self._ordered = self._ordered, None
        if order is None:
            return Masked()
        answer = None if self._fed is None else self._fed.masked()
        if answer is not None:
            return answer
        if self._fed is not None:
            self._fed.end()
            self._fed = None
        return Masked(tuple([(fill[1], FORM_LOST) for fill in order.fills]))

    def close(self) -> None:
        """Let the process go."""
        self._is_closed = True
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _ask(self, constraint: Constraint, told: Told, is_known: bool, num_left: int) -> None:
        if num_left and not self._is_closed:
            lost = partial(self._ask, constraint, told, is_known, num_left - 1)
            self._living().ask(constraint, is_known, told, lost)
        else:
            told(ServiceError(GONE, hint="Try again."))

    def _living(self) -> _Child:
        with self._lock:
            if self._child is not None and self._child.is_gone:
                self._child.close()
                self._child = None
            if self._child is None:
                self._child = _Child(self._about, self._memory_fd)
            return self._child


def _opens_all(order: MaskOrder) -> bool:
    return {key for key, *_ in order.fills} <= {key for key, *_ in order.opens}


class _Child:
    """One process, its pipes, and the thread that reads what it says and looks whether it has been stopped."""

    def __init__(self, about: KeepGrammars, memory_fd: int) -> None:
        child_reads, self._write_fd = os.pipe()
        self._read_fd, child_writes = os.pipe()
        fds = (child_reads, child_writes, memory_fd)
        # In a group of its own: Ctrl-C, even while it starts, is for others; it leaves when the pipe closes.
        self._process = subprocess.Popen(
            command("quire.engine.grammar_child", fds), pass_fds=fds, stdin=subprocess.DEVNULL, process_group=0
        )
        os.close(child_reads)
        os.close(child_writes)
        self.is_gone = self.has_spoken = False
        self._is_awaited = False
        self._num_stopped = 0
        self._sending = threading.Lock()
        self._asked: dict[str, tuple[Told, Lost]] = {}
        self._masked: queue.SimpleQueue[Masked | None] = queue.SimpleQueue()
        self.send(about)
        threading.Thread(target=self._read, name="quire-grammars", daemon=True).start()

    def send(self, message: ToGrammars) -> None:
        """Write one frame whole; to a process that has gone, nothing."""
        self._is_awaited = self._is_awaited or isinstance(message, MaskOrder)
        data = memoryview(encode(message))
        try:
            with self._sending:
                while data:
                    data = data[os.write(self._write_fd, data) :]
        except OSError:
            self.is_gone = True

    def ask(self, constraint: Constraint, is_known: bool, told: Told, lost: Lost) -> None:
        """Ask for a grammar; `told` hears the answer, or `lost` is called: there will be none."""
        number = str(len(self._asked)) + "-" + str(id(lost))
        self._asked[number] = told, lost
        self.send(Prepare(number, constraint, is_known))
        if self.is_gone and self._asked.pop(number, None) is not None:
            lost()

    def masked(self) -> Masked | None:
        """The next answer to a MaskOrder; None if the process has gone, or is as good as gone."""
        try:
            return self._masked.get(timeout=MASK_WAIT_S)
        except queue.Empty:
            return None

    def end(self) -> None:
        """At once: it does not answer."""
        self.is_gone = True
        self._process.kill()

    def close(self) -> None:
        """Close the pipe, which is the order to leave, and do not wait for long."""
        self.is_gone = True
        with self._sending:
            write_fd, self._write_fd = self._write_fd, -1
        os.close(write_fd)
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        decoder, waiter = Decoder(), select.poll()
        waiter.register(self._read_fd, select.POLLIN)
        while True:
            if not waiter.poll(1e3 * LOOK_S):
                self._look()
                continue
            data = os.read(self._read_fd, READ_BYTES)
            if not data:
                break
            for message in decoder.feed(data):
                self._take(message)  # type: ignore[arg-type]
        self.is_gone = True
        os.close(self._read_fd)
        self._masked.put(None)
        while self._asked:
            _, (_, lost) = self._asked.popitem()
            lost()

    def _look(self) -> None:
        """It has been silent for a while: one that was stopped, and that somebody waits for, is ended."""
        seen = body.look(self._process.pid) if self._is_awaited or self._asked else None
        self._num_stopped = self._num_stopped + 1 if seen is not None and seen.state in body.STOPPED else 0
        if self._num_stopped >= MOST_STOPPED:
            self._process.kill()

    def _take(self, message: FromGrammars) -> None:
        self.has_spoken = True
        if isinstance(message, Masked):
            self._is_awaited = False
            self._masked.put(message)
        elif isinstance(message, Prepared):
            told, _ = self._asked.pop(message.id, (None, None))
            if told is not None:
                told(rebuild(message.kind, message.message) if message.kind else None)
