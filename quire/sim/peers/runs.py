"""Knows: memory that is only given out in one piece. Does not know: what it is for.

|######.....####..........|      a piece of 6 blocks goes where it first fits; of 12 nowhere, though 15 are free
"""

from __future__ import annotations

from bisect import insort

from quire.errors import InternalError


class Runs:
    """`num_blocks` blocks, given out as runs of neighbours: first fit, merged again when they come back."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._gaps = [(0, num_blocks)] if num_blocks else []

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, in pieces of any size."""
        return sum([end - start for start, end in self._gaps])

    def take(self, count: int) -> list[int] | None:
        """The first run of `count` blocks, 1 or more; None if there is no piece as large."""
        for place, (start, end) in enumerate(self._gaps):
            if end - start >= count:
                self._gaps[place : place + 1] = [(start + count, end)] if end - start > count else []
                return list(range(start, start + count))
        return None

    def give_back(self, run: list[int]) -> None:
        """A run that `take` gave is free again."""
        insort(self._gaps, (run[0], run[-1] + 1))
        merged: list[tuple[int, int]] = []
        for start, end in self._gaps:
            if merged and start < merged[-1][1]:
                raise InternalError("a run of blocks came back twice", got=run[0])
            if merged and start == merged[-1][1]:
                start = merged.pop()[0]
            merged.append((start, end))
        self._gaps = merged
