"""Knows: a law of how long a step takes. Does not know: a real device."""

from __future__ import annotations

from dataclasses import dataclass

from quire.scheduling.cost import KNEE_TOKENS, Coefficients, StepShape

ACCELERATOR = Coefficients(fixed_s=20e-3, token_s=60e-6, context_token_s=40e-9)


@dataclass(frozen=True, slots=True)
class ModelledDevice:
    """Seconds of a step by the law of the step-time model: fixed, per token, per token beyond the knee, and so on.

    The defaults stand for one accelerator that reads an 8-billion-parameter model's weights in 20 ms and computes about
    16,000 prompt tokens a second. Under the 2023 Azure conversation trace (5.5 requests/s, 1155 tokens in, 211 out) it
    is busy nearly all the time, with some forty requests running, and its queue does not grow.
    """

    law: Coefficients = ACCELERATOR
    knee_tokens: int = KNEE_TOKENS

    def seconds(self, shape: StepShape) -> float:
        """How long a step of this shape takes."""
        law, count = self.law, shape.num_tokens
        seconds = law.fixed_s + law.token_s * count + law.extra_token_s * max(0, count - self.knee_tokens)
        seconds += law.draw_s * shape.num_draws + law.context_token_s * shape.num_context_tokens
        return seconds + law.pair_s * shape.num_pairs
