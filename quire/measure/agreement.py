"""How far one distribution over the vocabulary is from another, counted over many rows.

Knows: logits and targets. Does not know: models, texts.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CLEAR_MARGIN = 0.5  # logits by which the likeliest token leads: where it does, another answer is a mistake


def log_softmax(logits_RV: np.ndarray) -> np.ndarray:
    """Natural log probabilities, float64 [R, V]."""
    shifted_RV: np.ndarray = logits_RV.astype(np.float64) - logits_RV.max(axis=1, keepdims=True)
    logs_RV: np.ndarray = shifted_RV - np.log(np.exp(shifted_RV).sum(axis=1, keepdims=True))
    return logs_RV


@dataclass(slots=True)
class Agreement:
    """Sums over all rows so far; base is what the other is held against."""

    num_rows: int = 0
    num_same: int = 0
    num_clear: int = 0
    num_clear_same: int = 0
    base_nll: float = 0.0
    nll: float = 0.0
    divergence: float = 0.0
    largest_divergence: float = 0.0

    def add(self, base_RV: np.ndarray, other_RV: np.ndarray, targets_R: np.ndarray) -> None:
        """Count rows: log probabilities (natural) of both, and the token that the text has there."""
        rows = np.arange(len(targets_R))
        kl_R = (np.exp(base_RV) * (base_RV - other_RV)).sum(axis=1)
        best_two_R2 = np.partition(base_RV, -2, axis=1)[:, -2:]
        clear_R = best_two_R2[:, 1] - best_two_R2[:, 0] > CLEAR_MARGIN
        same_R = base_RV.argmax(axis=1) == other_RV.argmax(axis=1)
        self.num_rows += len(rows)
        self.num_same += int(same_R.sum())
        self.num_clear += int(clear_R.sum())
        self.num_clear_same += int((same_R & clear_R).sum())
        self.base_nll -= float(base_RV[rows, targets_R].sum())
        self.nll -= float(other_RV[rows, targets_R].sum())
        self.divergence += float(kl_R.sum())
        self.largest_divergence = max(self.largest_divergence, float(kl_R.max()))

    def figures(self) -> dict[str, float | int]:
        """Perplexity, its change in per cent of the base's, KL divergence in nats, top-1 agreement in per cent."""
        perplexity, base = (math.exp(nll / self.num_rows) for nll in (self.nll, self.base_nll))
        return {
            "perplexity": perplexity,
            "perplexity_change_percent": 100 * (perplexity / base - 1),
            "kl_divergence": self.divergence / self.num_rows,
            "largest_kl_divergence": self.largest_divergence,
            "top1_percent": 100 * self.num_same / self.num_rows,
            "top1_percent_where_clear": 100 * self.num_clear_same / self.num_clear if self.num_clear else 100.0,
            "clear_rows_that_differ": self.num_clear - self.num_clear_same,
        }
