"""Knows: how many values of which size were seen, and so their percentiles. Does not know: what they measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

RESOLUTION = 200  # buckets per factor e: percentiles are right within half a per cent
SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, percentiles and maximum of what was seen; zeros of nothing."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Seen:
    """A histogram of positive values in logarithmic buckets: memory does not grow with their number."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._num = 0
        self._sum = self._max = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """`value` was seen `times` more."""
        self._counts[round(log(max(value, SMALLEST)) * RESOLUTION)] += times
        self._num += times
        self._sum += value * times
        self._max = max(self._max, value)

    def spread(self) -> Spread:
        """What was seen until now."""
        if not self._num:
            return Spread()
        p50, p90, p99 = self._percentiles((0.5, 0.9, 0.99))
        return Spread(self._num, self._sum / self._num, p50, p90, p99, self._max)

    def _percentiles(self, shares: tuple[float, ...]) -> list[float]:
        found: list[float] = []
        below = 0
        for bucket, count in sorted(self._counts.items()):
            below += count
            while len(found) < len(shares) and below >= shares[len(found)] * self._num:
                found.append(min(self._max, exp(bucket / RESOLUTION)))
        return found


def jain_index(values: Sequence[float]) -> float:
    """Jain, Chiu and Hawe 1984: 1 where all are alike, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
