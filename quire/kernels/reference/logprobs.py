"""Log probabilities of the raw logits, for people who ask what the model really thought.

Knows: one row of logits. Does not know: penalties, temperature, or what was drawn and why.

Legend: V vocabulary.
"""

from __future__ import annotations

import math

import numpy as np

from quire.kernels.reference.truncation import best_first
from quire.kernels.reference.weights import UNIT, weigh
from quire.step import LEAST_LOGPROB, TokenLogprob


def token_logprob(logits_V: np.ndarray, token: int, num_top: int) -> TokenLogprob:
    """Natural-log probability of `token` and of the `num_top` likeliest, best first, equal ones by the lower id.

    log softmax(x)_i = x_i - (max(x) + log(sum_j exp(x_j - max(x)))) in float64, of the integer weights' sum; never less
    than LEAST_LOGPROB. The rank is 1 + how many are likelier, of equally likely ones those of lower ids.
    """
    peak = float(logits_V.max())
    normaliser = peak + math.log(float(int(weigh(logits_V, peak, 1.0).sum())) / UNIT)
    likelier_V = logits_V > logits_V[token]
    likelier_V[:token] |= logits_V[:token] == logits_V[token]
    return TokenLogprob(
        token,
        max(float(logits_V[token]) - normaliser, LEAST_LOGPROB),
        tuple(
            (int(other), max(float(logits_V[other]) - normaliser, LEAST_LOGPROB))
            for other in best_first(logits_V, num_top)
        ),
        1 + int(np.count_nonzero(likelier_V)),
    )
