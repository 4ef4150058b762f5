"""`--request-log`: a file that only its owner may read, bounded in size, written in a thread of its own.

Knows: files, rotation, what to do when a disk is full. Does not know: what a line says (`logged.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quire.errors import InvalidSetting
from quire.limits import MAX_PENDING_ENTRIES
from quire.observe import log
from quire.server.logged import LoggedJob, encode

OWNER_ONLY = 0o600


class RequestLog:
    """Appends whole lines. At `max_bytes` the file becomes FILE.1, in place of an earlier one, and a new one begins.

    A line that cannot be written is left out and counted, and the server goes on.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises `InvalidSetting` where the file cannot be had, or another server writes to it."""
        self.path, self._max_bytes = path, max_bytes
        self._descriptor = _open(path)
        self._num_bytes = os.fstat(self._descriptor).st_size
        self._thread = ThreadPoolExecutor(1, "quire-request-log")
        self._num_pending = self._num_lost = 0
        self._is_shared = False

    def write(self, job: LoggedJob) -> None:
        """Hand one over; never waits for the disk."""
        if self._num_pending >= MAX_PENDING_ENTRIES:
            self._lose("the disk is too slow")
            return
        self._num_pending += 1
        self._thread.submit(self._write, job)

    def share(self) -> None:
        """Let a successor write to the file, too; from now on it is the one who begins it anew."""
        self._is_shared = True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def reclaim(self) -> None:
        """There is no successor after all. Should somebody else have taken the file meanwhile, it stays shared."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_shared = False

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._thread.shutdown(wait=True)
        os.close(self._descriptor)

    def _write(self, job: LoggedJob) -> None:
        try:
            self._append(encode(job))
        except OSError as problem:
            self._lose(problem.strerror or type(problem).__name__)
        except InvalidSetting as problem:  # another file has taken the place of ours
            self._lose(problem.message)
        finally:
            self._num_pending -= 1

    def _append(self, line: bytes) -> None:
        self._num_bytes = os.fstat(self._descriptor).st_size  # during a handover two servers write
        if self._num_bytes and self._num_bytes + len(line) > self._max_bytes and not self._is_shared:
            self._begin_anew()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, self._num_bytes)  # no half lines
            raise

    def _begin_anew(self) -> None:
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        old, self._descriptor, self._num_bytes = self._descriptor, _open(self.path), 0
        os.close(old)

    def _lose(self, why: str) -> None:
        self._num_lost += 1
        if self._num_lost & (self._num_lost - 1) == 0:  # at 1, 2, 4, ...: the log is not to fill with it too
            log.say(log.get("request_log"), logging.WARNING, "not_written", lines=self._num_lost, why=why)


def _open(path: Path) -> int:
    """A descriptor at the end of the file, which nobody else may read, and which begins a line."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, OWNER_ONLY)
    except OSError as problem:
        raise InvalidSetting("--request-log cannot be written", got=str(path), hint=problem.strerror) from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise InvalidSetting("--request-log is not a file", got=str(path), allowed="a file of its own")
        os.fchmod(descriptor, OWNER_ONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if about.st_size and os.pread(descriptor, 1, about.st_size - 1) != b"\n":
            os.write(descriptor, b"\n")  # a crash left half a line
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidSetting(
            "--request-log is written by another server", got=str(path), allowed="a file of its own"
        ) from None
    except OSError as problem:
        os.close(descriptor)
        raise InvalidSetting("--request-log cannot be kept private", got=str(path), hint=problem.strerror) from None
    except InvalidSetting:
        os.close(descriptor)
        raise
    return descriptor
