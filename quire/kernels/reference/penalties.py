"""What makes tokens likelier or less likely before the draw: penalties, bias, bans, a mask.

Knows: one row of logits and the tokens so far. Does not know: how the draw is made.

Legend: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.step import Draw

_LEAST_PENALTY = np.finfo(np.float32).tiny
_LARGEST = np.finfo(np.float32).max


def adjust(logits_V: np.ndarray, draw: Draw, allowed_V: np.ndarray | None = None) -> np.ndarray:
    """A copy of one row with repetition, presence and frequency penalties, bias, bans and mask, in that order.

    Repetition (Keskar et al. 2019, CTRL) looks at prompt and answer: positive logits are divided, negative ones
    multiplied. Presence and frequency (OpenAI) look at the answer alone. A token that is banned, that would complete a
    bad sequence, that is not among the allowed ids, or not `allowed` (bool [V]), gets minus infinity. What would pass
    the largest float stays there.
    """
    row_V = logits_V.copy()
    params = draw.params
    with np.errstate(over="ignore"):
        if params.repetition_penalty != 1.0:
            seen = np.unique(np.asarray(draw.history, dtype=np.int64))
            penalty = max(np.float32(params.repetition_penalty), _LEAST_PENALTY)
            row_V[seen] = np.where(row_V[seen] > 0, row_V[seen] / penalty, row_V[seen] * penalty)
        if params.presence_penalty or params.frequency_penalty:
            answer, counts = np.unique(np.asarray(draw.history[draw.num_prompt :], dtype=np.int64), return_counts=True)
            row_V[answer] -= (params.presence_penalty + params.frequency_penalty * counts).astype(np.float32)
        row_V = np.minimum(row_V, _LARGEST)
        for token, bias in (params.logit_bias or {}).items():
            row_V[token] += np.float32(bias)
    row_V[list(draw.banned_ids)] = -np.inf
    row_V[~permitted(draw, len(row_V))] = -np.inf
    if allowed_V is not None:
        row_V[~allowed_V] = -np.inf
    return np.minimum(row_V, _LARGEST)


def permitted(draw: Draw, vocab_size: int) -> np.ndarray:
    """bool [V]: in the allow-list, where there is one, and not the end of a bad sequence whose beginning stands at the
    end of the answer."""
    allowed = draw.params.allowed_token_ids
    may_V = np.isin(np.arange(vocab_size), allowed) if allowed is not None else np.ones(vocab_size, bool)
    answer = list(draw.history[draw.num_prompt :])
    for *beginning, last in draw.bad_sequences:
        if answer[len(answer) - len(beginning) :] == beginning and len(answer) >= len(beginning) and last < vocab_size:
            may_V[last] = False
    return may_V
