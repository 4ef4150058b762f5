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
import subprocess
import threading
from pathlib import Path

from quire.engine.children import command
from quire.engine.grammars import Told
from quire.engine.messages import FromGrammars, KeepGrammars, Prepare, Prepared, ToGrammars
from quire.engine.wire import Decoder, encode, rebuild
from quire.errors import ServiceError
from quire.request import Constraint
from quire.structured.order import Masked, MaskOrder

READ_BYTES = 2**16
MASK_WAIT_S = 5.0  # longer than any mask within its limits; then the process counts as lost
GONE = "the grammar process has gone away"


class ProcessKeeper:
    """Grammars in another process. One that dies fails the answers it held, and is started anew for the next."""

    def __init__(self, folder: Path, vocab_size: int, eos_ids: tuple[int, ...], num_rows: int) -> None:
        num_bytes = num_rows * (-(-vocab_size // 32) * 4)
        self._memory_fd = os.memfd_create("quire-masks")
        os.ftruncate(self._memory_fd, num_bytes)
        self._rows = memoryview(mmap.mmap(self._memory_fd, num_bytes))
        self._about = KeepGrammars(str(folder), vocab_size, eos_ids)
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._ordered: MaskOrder | None = None

    @property
    def rows(self) -> memoryview:
        """All masks, one row after another."""
        return self._rows

    def warm(self) -> None:
        """Start the process, which reads its vocabulary first of all."""
        self._living()

    def prepare(self, constraint: Constraint, told: Told) -> None:
        """Send it over; `told` is called by the thread that reads the answers."""
        self._living().ask(constraint, told)

    def begin(self, order: MaskOrder) -> None:
        """Send it over."""
        self.wait()  # nothing is under way unless the last step drew nothing
        self._ordered = order
        self._living().send(order)

    def wait(self) -> Masked:
        """Wait for the answer."""
        order, self._ordered = self._ordered, None
        if order is None:
            return Masked()
        answer = self._living().masked()
        if answer is not None:
            return answer
        self.close()
        return Masked(tuple([(fill[1], GONE) for fill in order.fills]))

    def close(self) -> None:
        """Let the process go."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _living(self) -> _Child:
        with self._lock:
            if self._child is None or self._child.is_gone:
                self._child = _Child(self._about, self._memory_fd)
            return self._child


class _Child:
    """One process, its pipes, and the thread that reads what it says."""

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
        self.is_gone = False
        self._sending = threading.Lock()
        self._asked: dict[str, Told] = {}
        self._masked: queue.SimpleQueue[Masked | None] = queue.SimpleQueue()
        self.send(about)
        threading.Thread(target=self._read, name="quire-grammars", daemon=True).start()

    def send(self, message: ToGrammars) -> None:
        """Write one frame whole; to a process that has gone, nothing."""
        data = memoryview(encode(message))
        try:
            with self._sending:
                while data:
                    data = data[os.write(self._write_fd, data) :]
        except OSError:
            self.is_gone = True

    def ask(self, constraint: Constraint, told: Told) -> None:
        """Ask for a grammar; `told` hears the answer, or that there will be none."""
        number = str(len(self._asked)) + "-" + str(id(told))
        self._asked[number] = told
        self.send(Prepare(number, constraint))
        if self.is_gone and self._asked.pop(number, None) is not None:
            told(ServiceError(GONE))

    def masked(self) -> Masked | None:
        """The next answer to a MaskOrder; None if the process has gone, or is as good as gone."""
        try:
            return self._masked.get(timeout=MASK_WAIT_S)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Close the pipe, which is the order to leave, and do not wait for long."""
        self.is_gone = True
        os.close(self._write_fd)
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        decoder = Decoder()
        while data := os.read(self._read_fd, READ_BYTES):
            for message in decoder.feed(data):
                self._take(message)  # type: ignore[arg-type]
        self.is_gone = True
        os.close(self._read_fd)
        self._masked.put(None)
        while self._asked:
            _, told = self._asked.popitem()
            told(ServiceError(GONE))

    def _take(self, message: FromGrammars) -> None:
        if isinstance(message, Masked):
            self._masked.put(message)
        elif isinstance(message, Prepared):
            told = self._asked.pop(message.id, None)
            if told is not None:
                told(rebuild(message.kind, message.message) if message.kind else None)
