"""Knows: what blocks those who run will still take at once, from numbers. Does not know: who they are, or what is free.

Where a length is known (`ignore_eos`) the peak is computed; where it is not, expected. Who ends by itself ends at its
last token at the latest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

from quire.scheduling.growth import OutputLengths, bucket_of, peak_growth
from quire.scheduling.survival import HORIZONS, Usage

# Of one sequence: tokens that it may still draw, blocks that it holds, tokens drawn so far if it may end sooner or -1.
Future = tuple[int, int, int]


class Ahead:
    """`num_seats` run, take `num_promised` blocks for what they owe now, may still draw `num_left` tokens, and then go
    on as `futures()` says, which is asked only where not all of that fits; before any answer has ended `guess` is how
    long answers are taken to be."""

    __slots__ = (
        "_begun", "_futures", "_guess", "_known", "_lengths", "_num_left", "_num_seats", "_size", "_usage",
        "num_promised",
    )  # fmt: skip

    def __init__(
        self,
        num_seats: int,
        num_promised: int,
        num_left: int,
        futures: Callable[[], list[Future]],
        lengths: OutputLengths,
        block_size: int,
        guess: int,
    ) -> None:
        self.num_promised = num_promised
        self._num_seats = num_seats
        self._futures = futures
        self._begun: list[Future] = []  # since it was made
        self._lengths = lengths
        self._size = block_size
        self._guess = guess
        self._num_left = num_left
        self._known: list[tuple[int, int]] | None = None  # until it is asked for: mostly all of it fits
        self._usage: Usage | None = None  # of the others, None where there are none

    def __bool__(self) -> bool:
        """False if nobody runs."""
        return self._num_seats > 0

    def add(self, num_promised: int, future: Future, count: int) -> None:
        """`count` more run."""
        self.num_promised += num_promised
        self._num_seats += count
        self._begun += [future] * count
        self._num_left += count * future[0]
        if self._known is not None:
            self._known, self._usage = self._with(self._known, future, count)

    def growth(self, future: Future, count: int, room: int) -> int:
        """Blocks beyond those held now that all together, with `count` more, will want at once; if that cannot be
        more than `room`, some number up to it."""
        most = (self._num_left + count * future[0]) // self._size
        if most <= room:
            return most
        if self._known is None:
            self._known, self._usage = self._parted()
        known, usage = self._with(self._known, future, count)
        growth = peak_growth(known, self._size) + (0 if usage is None else round(usage.growth()))
        return min(most, growth)

    def _with(
        self, known: list[tuple[int, int]], future: Future, count: int
    ) -> tuple[list[tuple[int, int]], Usage | None]:
        num_left, num_held, num_drawn = future
        if num_drawn < 0:
            return known + [(num_left, num_held)] * count, self._usage
        usage = self._usage.copy() if self._usage is not None else self._expected([])
        usage.add(bucket_of(num_drawn + 1), bisect_left(HORIZONS, num_left) + 1, [num_held] * count)
        return known, usage

    def _parted(self) -> tuple[list[tuple[int, int]], Usage | None]:
        futures = self._futures() + self._begun
        known = [(num_left, num_held) for num_left, num_held, num_drawn in futures if num_drawn < 0]
        guessed = [future for future in futures if future[2] >= 0]
        return known, self._expected(guessed) if guessed else None

    def _expected(self, guessed: list[Future]) -> Usage:
        groups: dict[tuple[int, int], list[int]] = {}
        for num_left, num_held, num_drawn in guessed:
            key = bucket_of(num_drawn + 1), bisect_left(HORIZONS, num_left)
            groups.setdefault(key, []).append(num_held)
        running: Counter[int] = Counter()
        for (bucket, _), blocks in groups.items():
            running[bucket] += len(blocks)
        usage = Usage(self._lengths.survival(running, self._guess), self._size)
        for (bucket, number), blocks in groups.items():
            usage.add(bucket, number + 1, blocks)
        return usage
