"""Which tokens may be drawn, and with what weight: temperature, min_p, top_k, top_p.

Knows: one row of logits. Does not know: random numbers.

Legend: V vocabulary, C candidates.
"""

from __future__ import annotations

import math

import numpy as np

from quire.kernels.reference.weights import UNIT, inverse_temperature, weigh
from quire.request import SamplingParams


def best_first(row_V: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest values, largest first, equal ones by the lower id; int64 [min(k, V)]."""
    return np.argsort(-row_V, kind="stable")[:k]


def candidates(row_V: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """Ids that may be drawn, ascending, and their weights (int64, the likeliest 2**42): the order the field uses.

    Temperature first, then min_p (a share of the likeliest token's weight), top_k, top_p (the smallest set, best
    first, whose weight reaches top_p of what was left).
    """
    weights_V = weigh(row_V, float(row_V.max()), inverse_temperature(params.temperature))
    weights_V[weights_V < math.ceil(params.min_p * UNIT)] = 0
    ids_C = best_first(row_V, params.top_k if params.top_k > 0 else row_V.size)
    if params.top_p < 1.0:
        reach_C = np.cumsum(weights_V[ids_C])
        total = int(reach_C[-1])
        target = min(math.ceil(params.top_p * float(total)), total)
        ids_C = ids_C[: int(np.searchsorted(reach_C, target)) + 1]
    ids_C = np.sort(ids_C[weights_V[ids_C] > 0])
    return ids_C, weights_V[ids_C]
