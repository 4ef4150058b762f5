"""Knows: how long answers have been, and so how many blocks those who run will still take. Does not know: who they are.

    blocks in use  |        ____/\\____        each running sequence takes a block per block of tokens, and
                   |   ____/          \\__     gives all back when it ends: the peak, not the sum, must fit
                   |__/                  \\
                   +--------------------------> steps

After the idea of a past-future scheduler (Gong et al. 2025, "Past-Future Scheduler for LLM Serving under SLA
Guarantees"), with the mean of what is left instead of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from math import log2

BUCKETS_PER_OCTAVE = 4
NUM_BUCKETS = 32 * BUCKETS_PER_OCTAVE
REMEMBERED = 0.995  # of the weight of all lengths before, with each new one
FIRST_GUESS = 64  # tokens, before anything is known


class OutputLengths:
    """Lengths of answers that ended by themselves, newer ones counting more; constant memory."""

    def __init__(self) -> None:
        self._weights = [0.0] * NUM_BUCKETS
        self._sums = [0.0] * NUM_BUCKETS
        self._longer: list[tuple[float, float]] = [(0.0, 0.0)] * NUM_BUCKETS

    def record(self, num_tokens: int) -> None:
        """An answer of `num_tokens` has ended."""
        weights = [weight * REMEMBERED for weight in self._weights]
        sums = [total * REMEMBERED for total in self._sums]
        weights[_bucket(num_tokens)] += 1.0
        sums[_bucket(num_tokens)] += num_tokens
        self._weights, self._sums = weights, sums
        weight = total = 0.0
        for bucket in range(NUM_BUCKETS - 1, -1, -1):
            weight += weights[bucket]
            total += sums[bucket]
            self._longer[bucket] = weight, total

    def num_left(self, num_tokens: int, most: int) -> int:
        """Tokens that an answer of `num_tokens` so far is expected to get still, 1 to `most`.

        The mean of the longer ones; where hardly any was longer, as many again.
        """
        weight, total = self._longer[_bucket(num_tokens + 1)]
        guess = num_tokens + max(num_tokens, FIRST_GUESS)
        expected = (total + guess) / (weight + 1.0)
        return max(1, min(most, round(expected) - num_tokens))


def peak_growth(futures: SequenceOf[tuple[int, int]], block_size: int) -> int:
    """The most blocks that sequences will hold at once beyond what they hold now, each drawing a token a step.

    `futures` are (tokens left, blocks that are free again when it ends).
    """
    peak = freed = 0
    num_alive = len(futures)
    for num_left, num_held in sorted(futures):
        peak = max(peak, -(-num_alive * num_left // block_size) - freed)
        freed += num_held
        num_alive -= 1
    return peak


def _bucket(num_tokens: int) -> int:
    return min(NUM_BUCKETS - 1, int(BUCKETS_PER_OCTAVE * log2(max(1, num_tokens))))
