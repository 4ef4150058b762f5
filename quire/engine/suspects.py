"""Which request kills engines: those in the step of a death are tried apart from the rest, and by halves.

    a death    a b c d e f g h  in its step          the others wait
    tried      a b c d          live: cleared
               e f g h          die: e f, then g h are tried
               e f              live: cleared
               g h              die: g, then h are tried
               g                dies: present at two deaths at least, and at the last one alone: ended
               h                lives: cleared, and all go on together

A death that somebody's signal brought accuses nobody.

Knows: names and deaths. Does not know: engines, requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence


class Suspects:
    """`accuse` after a death, try the `next_group`, `clear` it when it has lived."""

    def __init__(self) -> None:
        self._groups: deque[list[str]] = deque()
        self._on_trial: list[str] | None = None

    @property
    def num(self) -> int:
        """Those who still have to be tried."""
        return sum(map(len, self._groups)) + len(self._on_trial or ())

    @property
    def are_tried(self) -> bool:
        """Whether someone is on trial now."""
        return self._on_trial is not None

    def next_group(self) -> list[str] | None:
        """Who is to be tried now, alone in the engine; None where nobody is suspected."""
        if self._on_trial is None and self._groups:
            self._on_trial = self._groups.popleft()
        return self._on_trial

    def clear(self) -> None:
        """Those on trial have lived through what the engine died of."""
        self._on_trial = None

    def retry(self) -> None:
        """An engine was lost through nobody's fault: those on trial are tried again."""
        if self._on_trial is not None:
            self._groups.appendleft(self._on_trial)
            self._on_trial = None

    def accuse(self, present: Sequence[str]) -> str | None:
        """An engine died in a step of `present`; the one whose fault it is, if that is certain now.

        During a trial only those on trial were there, in that step or not: where the step says nothing, it is one of
        them all the same.
        """
        tried, self._on_trial = self._on_trial, None
        if tried is None:
            self._split(list(present))
            return None
        found = [name for name in tried if name in set(present)] or tried
        if len(found) == 1:
            return found[0]
        self._split(found)
        return None

    def keep(self, names: Collection[str]) -> None:
        """Only these are still here; the others have left."""
        groups = [[name for name in group if name in names] for group in self._groups]
        self._groups = deque([group for group in groups if group])
        if self._on_trial is not None:
            self._on_trial = [name for name in self._on_trial if name in names] or None

    def _split(self, names: list[str]) -> None:
        half = -(-len(names) // 2)
        self._groups.extendleft([group for group in (names[half:], names[:half]) if group])
