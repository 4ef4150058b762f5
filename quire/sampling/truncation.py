"""Which tokens may be drawn, and with what weight: temperature, min_p, top_k, top_p.

Knows: one row of logits. Does not know: random numbers.

Legend: V vocabulary, C candidates.
"""

from __future__ import annotations

import numpy as np

from quire.request import SamplingParams

_FIRST_LOOK = 1024  # a nucleus nearly always lies among this many; a full sort of 152k logits takes 10 ms


def best_first(row_V: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest values, largest first, equal ones by the lower id; int64 [k]."""
    if k >= row_V.size:
        return np.argsort(-row_V, kind="stable")
    threshold = np.partition(row_V, row_V.size - k)[row_V.size - k]
    ids_C = np.flatnonzero(row_V >= threshold)
    return ids_C[np.argsort(-row_V[ids_C], kind="stable")][:k]


def candidates(row_V: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """Ids that may be drawn and their weights (float64, unnormalised): the order the field uses.

    Temperature first, then min_p (a share of the best token's probability), top_k, top_p (the smallest set, best
    first, whose probability reaches top_p). Ids are best first if anything was cut, else ascending.
    """
    weights_V = np.exp((row_V.astype(np.float64) - float(row_V.max())) / params.temperature)
    if params.min_p > 0.0:
        weights_V[weights_V < params.min_p] = 0.0
    ids_C = None
    if 0 < params.top_k < row_V.size:
        ids_C = best_first(row_V, params.top_k)
    if params.top_p < 1.0:
        ids_C = _nucleus(row_V, weights_V, ids_C, params.top_p)
    if ids_C is None:
        return np.arange(row_V.size), weights_V
    return ids_C, weights_V[ids_C]


def _nucleus(row_V: np.ndarray, weights_V: np.ndarray, ids_C: np.ndarray | None, top_p: float) -> np.ndarray:
    """The best-first ids whose weights first reach `top_p` of the total (of `ids_C`, where top_k has cut already)."""
    if ids_C is not None:
        return _reach(ids_C, weights_V[ids_C], top_p * weights_V[ids_C].sum())
    target = top_p * weights_V.sum()
    ids_C = best_first(row_V, min(_FIRST_LOOK, row_V.size))
    if weights_V[ids_C].sum() < target:
        ids_C = best_first(row_V, row_V.size)
    return _reach(ids_C, weights_V[ids_C], target)


def _reach(ids_C: np.ndarray, weights_C: np.ndarray, target: float) -> np.ndarray:
    return ids_C[: int(np.searchsorted(np.cumsum(weights_C), target)) + 1]
