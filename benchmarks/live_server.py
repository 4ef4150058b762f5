"""A real `quire serve` on a free port, for scripts that send it signals and look at its process.

Knows: processes, stderr, /proc. Does not know: what is asked of the server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

START_S = 1800.0  # a model of many gigabytes may have to be read
LOOK_S = 0.02


@dataclass
class LiveServer:
    """`pid` is the process that serves; a rolling restart changes it."""

    process: subprocess.Popen[bytes]
    said: IO[str]
    pid: int = 0
    url: str = ""
    others: list[int] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    @property
    def lines(self) -> list[str]:
        """What was said until now."""
        return self.text().splitlines()

    def text(self) -> str:
        """All of stderr, of all processes that inherited it."""
        return Path(self.said.name).read_text()

    def wait_for(self, pattern: str, limit_s: float = START_S, since: int = 0) -> re.Match[str]:
        """The first match in what was said after `since` characters; ends the script if it does not come."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if found := re.search(pattern, self.text()[since:], re.MULTILINE):
                return found
            if not self.others and self.process.poll() is not None:
                break
            time.sleep(LOOK_S)
        raise SystemExit(f"{pattern} was not said:\n{self.text()}")

    def restart(self) -> tuple[float, int]:
        """Have it hand over to a successor: seconds until that answered, and the pid of the one that leaves now."""
        before, since, start = self.pid, len(self.text()), time.monotonic()
        os.kill(before, signal.SIGUSR2)
        number = int(self.wait_for(r"^restart  process (\d+) starts", since=since).group(1))
        self.others.append(number)
        self.wait_for(f"process {number} answers", since=since)
        self.pid = number
        return time.monotonic() - start, before

    def engine(self) -> int | None:
        """The engine's process; None while there is none."""
        return _child(self.pid, b"engine")

    def grammars(self) -> int | None:
        """The process that keeps grammars; None while there is none."""
        engine = self.engine()
        return None if engine is None else _child(engine, b"grammar_child")

    def hurt(self, number: signal.Signals, is_grammars: bool = False) -> bool:
        """Send a signal to the engine, or to the grammar process; whether there was one."""
        with suppress(ProcessLookupError):
            if (pid := self.grammars() if is_grammars else self.engine()) is not None:
                os.kill(pid, number)
                return True
        return False

    def is_gone(self, pid: int) -> bool:
        """Whether that process has ended; our own child is waited for."""
        if pid == self.process.pid:
            return self.process.poll() is not None
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    def end(self) -> None:
        """Order every process to leave, and wait until it has."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in (self.process.pid, *self.others):
                with suppress(ProcessLookupError):
                    if not self.is_gone(pid):
                        os.kill(pid, number)
            end = time.monotonic() + 30
            while time.monotonic() < end and not all(map(self.is_gone, (self.process.pid, *self.others))):
                time.sleep(LOOK_S)


@contextmanager
def started(
    command: list[str], environment: dict[str, str] | None = None, limit_s: float = START_S
) -> Iterator[LiveServer]:
    """The server that `command` runs, once it says where it serves; ended with all its successors."""
    with tempfile.NamedTemporaryFile("w+") as said:
        server = LiveServer(subprocess.Popen(command, stderr=said, env=environment), said)
        try:
            server.url = server.wait_for(r"^serving .* at (\S+)/v1$", limit_s).group(1)
            server.pid = server.process.pid
            yield server
        finally:
            server.end()


def live_server(model: str | None, *options: str, limit_s: float = START_S) -> AbstractContextManager[LiveServer]:
    """Serve `model`, None for the bundled one."""
    named = [model] if model else []
    return started([sys.executable, "-m", "quire", "serve", *named, "--port", "0", *options], limit_s=limit_s)


def _child(pid: int, module: bytes) -> int | None:
    """A child of `pid` whose module has `module` in its name."""
    with suppress(OSError):
        for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):
                words = Path(f"/proc/{text}/cmdline").read_bytes().split(b"\0")
                if b"-m" in words and module in words[words.index(b"-m") + 1]:
                    return int(text)
    return None


def children(pid: int) -> list[int]:
    """Processes that `pid` has started and that still run, and those that they have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found += [int(path.parent.name), *children(int(path.parent.name))]
    return sorted(found)


def num_descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
