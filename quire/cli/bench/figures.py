"""Percentiles and medians of measured times.

Knows: lists of numbers. Does not know: what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, median

SHARES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of `ordered` (ascending, not empty) lies, interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return min(ordered[low] + (ordered[high] - ordered[low]) * (place - low), ordered[high])  # rounding may overshoot


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Mean, percentiles and maximum; None of nothing, because a figure of no measurement would be a lie."""
    ordered = sorted(values)
    if not ordered:
        return None
    figures = {"mean": fmean(ordered)} | {name: percentile(ordered, share) for name, share in SHARES.items()}
    return {name: significant(value) for name, value in (figures | {"max": ordered[-1]}).items()}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over `runs`, which have the same keys."""
    return {name: significant(median(run[name] for run in runs)) for name in runs[0]}


def significant(value: float, digits: int = 5) -> float:
    """`value` with as many digits as a measurement on a shared machine can carry."""
    return float(f"{value:.{digits}g}")
