"""What makes tokens likelier or less likely before the draw: penalties, bias, bans.

Knows: one row of logits and the tokens so far. Does not know: how the draw is made.

Legend: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.step import Draw


def adjusts(draw: Draw) -> bool:
    """True where `adjust` would change anything."""
    params = draw.params
    return bool(
        params.logit_bias
        or draw.banned_ids
        or params.repetition_penalty != 1.0
        or params.presence_penalty
        or params.frequency_penalty
    )


def adjust(logits_V: np.ndarray, draw: Draw) -> np.ndarray:
    """A copy of one row, float32, with repetition, presence and frequency penalties, bias and bans, in that order.

    Repetition (Keskar et al. 2019, CTRL) looks at prompt and answer: positive logits are divided, negative ones
    multiplied. Presence and frequency (OpenAI) look at the answer alone. A banned token gets minus infinity.
    """
    row_V = logits_V.copy()
    params = draw.params
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.asarray(draw.history, dtype=np.int64))
        values = row_V[seen]
        penalty = np.float32(params.repetition_penalty)
        row_V[seen] = np.where(values > 0, values / penalty, values * penalty)
    if params.presence_penalty or params.frequency_penalty:
        answer, counts = np.unique(np.asarray(draw.history[draw.num_prompt :], dtype=np.int64), return_counts=True)
        row_V[answer] -= (params.presence_penalty + params.frequency_penalty * counts).astype(np.float32)
    for token, bias in (params.logit_bias or {}).items():
        row_V[token] += np.float32(bias)
    if draw.banned_ids:
        row_V[list(draw.banned_ids)] = -np.inf
    return row_V
