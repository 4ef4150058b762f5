"""Finding marks in a text that is still coming.

Knows: a set of marks. Does not know: what they mean.
"""

from __future__ import annotations

import re

from quire.text.formats.source import Source, Wait


class Marks:
    """Finds the first of several texts, none of which begins another."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        self._pattern = re.compile("|".join(re.escape(mark) for mark in marks) or r"(?!)")
        self._beginnings = frozenset(mark[:size] for mark in marks for size in range(1, len(mark)))
        self._longest = max((len(mark) for mark in marks), default=1) - 1

    def here(self, source: Source) -> Wait[str]:
        """The mark that is next, not taken; "" where none is."""
        while True:
            if found := self._pattern.match(source.text, source.at):
                return found.group()
            if source.ended or (source.at < len(source.text) and source.text[source.at :] not in self._beginnings):
                return ""
            yield

    def find(self, text: str, start: int) -> tuple[str, int]:
        """The mark and where it begins; without one, "" and where an ending that may begin one starts."""
        if found := self._pattern.search(text, start):
            return found.group(), found.start()
        for place in range(max(start, len(text) - self._longest), len(text)):
            if text[place:] in self._beginnings:
                return "", place
        return "", len(text)


class WithoutMarks:
    """Passes text on without marks, also those that only arise where another was taken out."""

    def __init__(self, marks: Marks) -> None:
        self._marks, self._held = marks, ""

    def push(self, text: str) -> str:
        """What may be told now; an ending that may begin a mark waits."""
        text = self._held + text
        mark, place = self._marks.find(text, 0)
        while mark:
            text = text[:place] + text[place + len(mark) :]
            mark, place = self._marks.find(text, 0)
        self._held = text[place:]
        return text[:place]

    def end(self) -> str:
        """What waited."""
        held, self._held = self._held, ""
        return held
