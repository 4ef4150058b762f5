"""Knows: a linear model of how long a step takes. Does not know: a real device."""

from __future__ import annotations

from dataclasses import dataclass

from quire.step import Step


@dataclass(frozen=True, slots=True)
class ModelledDevice:
    """Seconds of a step = base + per token computed + per token of context read.

    The defaults stand for one accelerator that reads an 8-billion-parameter model's weights in 20 ms and computes about
    16,000 prompt tokens a second. Under the 2023 Azure conversation trace (5.5 requests/s, 1155 tokens in, 211 out) it
    is busy nearly all the time, with some forty requests running, and its queue does not grow.
    """

    base_s: float = 20e-3
    per_token_s: float = 60e-6
    per_context_token_s: float = 40e-9

    def seconds(self, step: Step) -> float:
        """How long `step` takes."""
        num_tokens = num_context = 0
        for work in step.works:
            count = len(work.tokens)
            num_tokens += count
            num_context += work.start + count
        return self.base_s + self.per_token_s * num_tokens + self.per_context_token_s * num_context
