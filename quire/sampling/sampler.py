"""One row of logits and one way to draw give one token per sample index.

Knows: the chain penalties -> truncation -> draw -> logprobs. Does not know: which sequence the row belongs to.

Legend: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.sampling import penalties
from quire.sampling.logprobs import token_logprob
from quire.sampling.random import uniform
from quire.sampling.truncation import candidates
from quire.step import Draw, TokenLogprob, WorkResult


def sample(logits_V: np.ndarray, draw: Draw) -> WorkResult:
    """Draw one token for each of `draw.indices` from one row of float32 logits, which stays as it is.

    A row whose largest value is not finite gives a result with `error` and no token.
    """
    best = int(logits_V.argmax())  # NaN counts as largest
    if not np.isfinite(logits_V[best]):
        return WorkResult(error="the model's logits are not finite")
    row_V = penalties.adjust(logits_V, draw) if penalties.adjusts(draw) else logits_V
    tokens = _choose(row_V, draw, best)
    if draw.params.logprobs is None:
        return WorkResult(tokens)
    return WorkResult(tokens, _logprobs(logits_V, tokens, draw.params.logprobs))


def _choose(row_V: np.ndarray, draw: Draw, best: int) -> tuple[int, ...]:
    """Tokens for all indices; equal logits break by the lower id, since argmax takes the first."""
    params = draw.params
    if params.greedy or params.top_k == 1:
        token = int(row_V.argmax()) if penalties.adjusts(draw) else best
        return (token,) * len(draw.indices)
    ids_C, weights_C = candidates(row_V, params)
    reach_C = np.cumsum(weights_C)
    seed = params.seed or 0
    targets = [uniform(seed, index, draw.position) * reach_C[-1] for index in draw.indices]
    last = np.searchsorted(reach_C, reach_C[-1])  # the last with a weight: a target may round up to the sum
    places = np.minimum(np.searchsorted(reach_C, targets, side="right"), last)
    return tuple(int(ids_C[place]) for place in places)


def _logprobs(logits_V: np.ndarray, tokens: tuple[int, ...], num_top: int) -> tuple[TokenLogprob, ...]:
    return tuple(token_logprob(logits_V, token, num_top) for token in tokens)
