"""Log probabilities of the raw logits, for people who ask what the model really thought.

Knows: one row of logits. Does not know: penalties, temperature, or what was drawn and why.

Legend: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.sampling.truncation import best_first
from quire.step import TokenLogprob


def token_logprob(logits_V: np.ndarray, token: int, num_top: int) -> TokenLogprob:
    """Natural-log probability of `token` and of the `num_top` likeliest, best first, equal ones by the lower id.

    log softmax(x)_i = x_i - max(x) - log(sum_j exp(x_j - max(x))), the sum in float64.
    """
    wide_V = logits_V.astype(np.float64)
    peak = float(wide_V.max())
    normaliser = peak + float(np.log(np.exp(wide_V - peak).sum()))
    top = best_first(logits_V, num_top) if num_top else ()
    return TokenLogprob(
        token,
        float(logits_V[token]) - normaliser,
        tuple((int(other), float(logits_V[other]) - normaliser) for other in top),
    )
