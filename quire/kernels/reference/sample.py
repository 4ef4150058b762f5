"""One row of logits and one way to draw give one token per sample index.

Knows: the chain penalties -> truncation -> draw -> logprobs. Does not know: blocks, bounds, threads.

Legend: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.kernels.reference.logprobs import token_logprob
from quire.kernels.reference.penalties import adjust
from quire.kernels.reference.philox import NUM_BITS, random_bits
from quire.kernels.reference.truncation import candidates
from quire.step import LOGITS_NOT_FINITE, NOTHING_ALLOWED, Draw, WorkResult


def sample(logits_V: np.ndarray, draw: Draw, allowed_V: np.ndarray | None = None) -> WorkResult:
    """Draw one token for each of `draw.indices` from one row of float32 logits, which stays as it is.

    A row that holds NaN or infinity gives a result with `error` and no token; so does one of which
    bans and mask leave nothing.
    """
    if not np.isfinite(logits_V).all():
        return WorkResult(error=LOGITS_NOT_FINITE)
    row_V = adjust(logits_V, draw, allowed_V)
    if row_V.max() == -np.inf:
        return WorkResult(error=NOTHING_ALLOWED)
    tokens = _choose(row_V, draw)
    num_top = draw.params.logprobs
    if num_top is None:
        return WorkResult(tokens)
    return WorkResult(tokens, tuple(token_logprob(logits_V, token, num_top) for token in tokens))


def _choose(row_V: np.ndarray, draw: Draw) -> tuple[int, ...]:
    """Tokens for all indices; equal logits break by the lower id, since argmax takes the first."""
    params = draw.params
    if params.greedy or params.top_k == 1:
        return (int(row_V.argmax()),) * len(draw.indices)
    ids_C, weights_C = candidates(row_V, params)
    reach_C = np.cumsum(weights_C)
    total, seed = int(reach_C[-1]), params.seed or 0
    points = [random_bits(seed, index, draw.position) * total >> NUM_BITS for index in draw.indices]
    return tuple(int(ids_C[place]) for place in np.searchsorted(reach_C, points, side="right"))
