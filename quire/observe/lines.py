"""Lines to stderr that never hold up the one who says them.

A pipe that nobody reads is full after 64 KiB; a write to it waits, and with it every stream of this process. So a
line that cannot be taken at once is lost, and counted.

Knows: descriptors. Does not know: what lines say.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TextIO

PIPE_BUF = select.PIPE_BUF  # as much as a pipe that can be written to takes without waiting


class Lines:
    """`tell` writes to `stream`; `num_lost` counts what could not be written since it was last asked to `forget`."""

    def __init__(self, stream: TextIO | None) -> None:
        """None, and a stream that is closed, lose everything."""
        self.num_lost = 0
        self._stream = stream
        self._descriptor = _descriptor(stream)

    def can_take(self) -> bool:
        """Whether a line would be taken now."""
        if self._descriptor is None:
            return self._stream is not None and not self._stream.closed
        look = select.poll()
        look.register(self._descriptor, select.POLLOUT)
        return [event for _, event in look.poll(0)] == [select.POLLOUT]

    def tell(self, line: str) -> None:
        """Write `line` and a line break, or lose it."""
        text = line + "\n"
        if not (self._told(text) if self._descriptor is None else self._written(text.encode("utf-8", "replace"))):
            self.num_lost += 1

    def forget(self) -> int:
        """How many were lost so far; counting begins anew."""
        num, self.num_lost = self.num_lost, 0
        return num

    def _told(self, text: str) -> bool:
        if self._stream is None or self._stream.closed:
            return False
        self._stream.write(text)
        self._stream.flush()
        return True

    def _written(self, data: bytes) -> bool:
        """False if the end of it was lost too."""
        while data:
            if not self.can_take():
                return False
            try:
                data = data[os.write(self._descriptor or 0, data[:PIPE_BUF]) :]
            except OSError:
                return False
        return True


def _descriptor(stream: TextIO | None) -> int | None:
    """None for what is no file of the system's: text kept in memory, or nothing."""
    if stream is None:
        return None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return None
