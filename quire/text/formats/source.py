"""Text as it comes, read as if it were all there: reading what has not come yet waits.

A reader is a generator that yields while it waits and returns what it read, so that it is written straight on, and how
the text was cut cannot change what it reads.

Knows: characters that have come. Does not know: what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import TypeVar

from quire.text.formats.dialect import chunks

T = TypeVar("T")
Wait = Generator[None, None, T]
Tell = Callable[[str], None]


class Source:
    """Text that has come and is still needed. `at` is the next character to read, `ended` that no more will come."""

    __slots__ = ("_kept", "at", "ended", "text")

    def __init__(self) -> None:
        self.text, self.at, self.ended = "", 0, False
        self._kept: int | None = None

    def feed(self, text: str) -> None:
        """Add what came; forget what was read, unless it is kept."""
        cut = self.at if self._kept is None else self._kept
        self.text = self.text[cut:] + text
        self.at -= cut
        self._kept = None if self._kept is None else 0

    def keep(self) -> None:
        """From here on nothing is forgotten, until `restore` or `settle`."""
        self._kept = self.at

    def restore(self) -> None:
        """Back to where `keep` was called."""
        if self._kept is not None:
            self.at, self._kept = self._kept, None

    def settle(self) -> None:
        """What was read stays read."""
        self._kept = None

    def take(self, count: int) -> str:
        """The next `count` characters, which have come."""
        self.at += count
        return self.text[self.at - count : self.at]

    def character(self) -> Wait[str]:
        """The next character, not taken; "" at the end."""
        while self.at >= len(self.text) and not self.ended:
            yield
        return self.text[self.at : self.at + 1]

    def literal(self, text: str) -> Wait[bool]:
        """Take `text` if it is what comes next. Waits only while it may be."""
        while True:
            if self.text.startswith(text, self.at):
                self.at += len(text)
                return True
            if self.ended or not text.startswith(self.text[self.at : self.at + len(text)]):
                return False
            yield

    def loose(self, text: str) -> Wait[bool]:
        """Take `text`, with any white space or none where it has some; stops at the first difference."""
        for chunk in chunks(text):
            if chunk.isspace():
                yield from self.space()
            elif not (yield from self.literal(chunk)):
                return False
        return True

    def space(self) -> Wait[str]:
        """Take all white space."""
        return (yield from self.run(_SPACE))

    def run(self, pattern: re.Pattern[str]) -> Wait[str]:
        """Take what `pattern` matches (a run of characters, perhaps none), once it is known where it ends."""
        while True:
            found = pattern.match(self.text, self.at)
            end = self.at if found is None else found.end()
            if end < len(self.text) or self.ended:
                return self.take(end - self.at)
            yield

    def until(self, stop: str, tell: Tell, limit: int | None = None) -> Wait[bool]:
        """Tell everything before `stop` and take `stop` too. False if it does not come, within `limit` characters."""
        told = 0
        while True:
            found = self.text.find(stop, self.at)
            end = found if found >= 0 else len(self.text) if self.ended else self._certain(stop)
            told += end - self.at
            if limit is not None and told > limit:
                return False
            if end > self.at:
                tell(self.take(end - self.at))
            if found >= 0:
                self.at += len(stop)
                return True
            if self.ended:
                return False
            yield

    def _certain(self, stop: str) -> int:
        """Where an ending that may begin `stop` starts."""
        for size in range(min(len(stop) - 1, len(self.text) - self.at), 0, -1):
            if self.text.endswith(stop[:size]):
                return len(self.text) - size
        return len(self.text)


_SPACE = re.compile(r"\s*")
