"""Knows: how many tokens a step may compute so that those who speak are not kept waiting. Does not know: who they are.

    seconds   |               .--  prompt tokens, at a price that the step-time model knows
    of a step |---- target --/---------------------------------
              |         ..--'|
              |--------------| tokens drawn | prompt tokens allowed |

Does not know: clocks, sequences, or what the target is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from quire.scheduling.cost import CostModel, StepShape, num_chunk_pairs

LEAST_CHUNK = 16
# For the way to whoever reads, and for the host: with 1.03, five runs at 0.3 s had a 99th percentile of 0.28 to 0.31 s.
HEADROOM = 1.05
LEAST_SHARE = 3  # prompts get at least a token for so many who speak


@dataclass(frozen=True, slots=True)
class ItlTarget:
    """Longest time between two tokens: `factor` times a step without prompts, but not under `floor_s`."""

    floor_s: float = inf
    factor: float = 0.0

    def seconds(self, alone_s: float) -> float:
        """The target, if a step without prompts takes `alone_s`."""
        return max(self.floor_s, self.factor * alone_s)


def step_tokens(cost: CostModel, num_speaking: int, num_context: int, start: int, most: int, target: ItlTarget) -> int:
    """Tokens that the next step may compute, at most `most`.

    `num_speaking` sequences that hold `num_context` tokens draw their next one, and prompts are read from `start` on.
    Of such steps 99 in a hundred then take at most the target, by what the model knows of itself; but prompts always
    get a little. Nobody speaks, or nothing is known yet: `most`.
    """
    alone_s = cost.predict(StepShape(num_speaking, num_speaking, num_context + num_speaking))
    if not num_speaking or alone_s is None:
        return most
    target_s = target.seconds(alone_s) / (HEADROOM * cost.late)
    low, high = 0, max(0, most - num_speaking)
    while low < high:
        count = (low + high + 1) // 2
        if _seconds(cost, num_speaking, num_context, start, count) <= target_s:
            low = count
        else:
            high = count - 1
    least = max(LEAST_CHUNK, -(-num_speaking // LEAST_SHARE))
    return min(most, num_speaking + max(low, least))


def _seconds(cost: CostModel, num_speaking: int, num_context: int, start: int, count: int) -> float:
    num_tokens = num_speaking + count
    return cost.seconds(num_tokens, num_speaking, num_context + num_tokens + start, num_chunk_pairs(start, count))
