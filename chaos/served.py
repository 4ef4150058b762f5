"""A real `quire serve` on a free port, and what the system says of its processes.

Knows: the command, /proc, signals. Does not know: what is asked of the server, or who hurts it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVING = re.compile(r"serving .* at http://127\.0\.0\.1:(\d+)/v1")
START_S = 120.0
LEAVE_S = 20.0
LOOK_S = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def end_in_order() -> None:
    """Let SIGTERM end this process as an error would: what it started is ended with it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class DidNotStart(Exception):
    """The command ended, or said nothing of an address in time; what it said is the message."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one process holds."""

    resident_bytes: int
    num_descriptors: int
    num_threads: int


class Served:
    """A server process. `said` is everything that it and its children wrote to stderr so far."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path, port: int) -> None:
        self.process, self.port, self._said = process, port, said

    @property
    def said(self) -> str:
        """Its stderr."""
        return self._said.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> int | None:
        """The engine's process id; None while there is none."""
        return next((pid for pid in children(self.process.pid) if "quire.engine" in modules_of(pid)), None)

    @property
    def grammars(self) -> int | None:
        """The grammar process' id; None while there is none."""
        of_engine = [] if self.engine is None else children(self.engine)
        return next((pid for pid in of_engine if "quire.engine.grammar_child" in modules_of(pid)), None)

    @property
    def pids(self) -> dict[str, int | None]:
        """All of them by name."""
        return {"front": self.process.pid, "engine": self.engine, "grammars": self.grammars}

    def stop(self, number: signal.Signals = signal.SIGTERM, patience_s: float = LEAVE_S) -> int:
        """Ask it to leave and wait; its exit code. One that stays is killed, and that is -9."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def command(*options: str, module: str = "quire") -> list[str]:
    """The command line of a server on a free port."""
    return [sys.executable, "-m", module, "serve", "--port", "0", *options]


@contextmanager
def served(
    *options: str,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    start_s: float = START_S,
    argv: Sequence[str] | None = None,
) -> Iterator[Served]:
    """A server that serves; `before` runs in its process first of all. Ended, with its children, when this ends.

    Raises `DidNotStart`.
    """
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as folder:
        said = Path(folder) / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                list(argv or command(*options)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                preexec_fn=before,
            )
        family: set[int] = set()
        try:
            server = Served(process, said, port_of(process, said, start_s))
            family |= descendants(process.pid)
            yield server
        finally:
            family |= descendants(process.pid)
            _end(process, family)


def port_of(process: subprocess.Popen[bytes], said: Path, start_s: float = START_S) -> int:
    """The port that it tells. Raises `DidNotStart` if it ends before, or in `start_s` seconds says nothing."""
    end = time.monotonic() + start_s
    while time.monotonic() < end:
        text = said.read_text(encoding="utf-8", errors="replace")
        if found := SERVING.search(text):
            return int(found[1])
        if process.poll() is not None:
            raise DidNotStart(f"exit code {process.returncode}: {said.read_text(errors='replace')}")
        time.sleep(LOOK_S)
    raise DidNotStart(f"no address after {start_s:.0f} s: {said.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes], family: set[int]) -> None:
    """Whatever was stopped goes on, whatever stays is killed."""
    for pid in family | {process.pid}:
        send(pid, signal.SIGCONT)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in family:
        if modules_of(pid) & {"quire", "quire.engine", "quire.engine.grammar_child"}:
            send(pid, signal.SIGKILL)


def send(pid: int | None, number: signal.Signals) -> bool:
    """Send a signal; False where there is nobody to get it."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int | None) -> bool:
    """Whether this process runs; one that has ended and waits to be collected does not."""
    try:
        return pid is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Process ids of the living children, the oldest first."""
    found = []
    for task in _listed(f"/proc/{pid}/task"):
        try:
            found += [int(each) for each in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return sorted(each for each in found if is_alive(each))


def descendants(pid: int) -> set[int]:
    """All that come from it."""
    found = set(children(pid))
    for each in tuple(found):
        found |= descendants(each)
    return found


def modules_of(pid: int) -> set[str]:
    """The words of its command line: `python -m quire.engine` is told by its module."""
    try:
        return set(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return set()


def footprint(pid: int | None) -> Footprint | None:
    """What it holds now; None if it is gone."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        return Footprint(resident, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return None


def cpu_s(pid: int | None) -> float:
    """Seconds of processor time that it has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
