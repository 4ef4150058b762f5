"""Knows: how long answers have been, and so how many blocks those who run will still take. Does not know: who they are.

    blocks in use  |        ____/\\____        each running sequence takes a block per block of tokens, and
                   |   ____/          \\__     gives all back when it ends: the peak, not the sum, must fit
                   |__/                  \\
                   +--------------------------> steps

After the idea of a past-future scheduler (Gong et al. 2025, "Past-Future Scheduler for LLM Serving under SLA
Guarantees"), with what is expected (`survival.py`) instead of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from math import log2

from quire.scheduling.survival import BUCKETS_PER_OCTAVE, NUM_BUCKETS, Survival

REMEMBERED = 0.995  # of the weight of all lengths before, with each new one
FIRST_GUESS = 64  # tokens, before anything is known
HEAVIEST = 1e9


class OutputLengths:
    """Lengths of answers that ended by themselves, newer ones counting more; constant memory."""

    def __init__(self) -> None:
        # Sums over all lengths of a bucket or longer. A new length weighs more than the last one by 1 / REMEMBERED
        # instead of all older ones less: one number changes instead of all.
        self._num_longer = [0.0] * NUM_BUCKETS
        self._sum_longer = [0.0] * NUM_BUCKETS
        self._newest = 1.0

    def record(self, num_tokens: int) -> None:
        """An answer of `num_tokens` has ended."""
        self._newest /= REMEMBERED
        if self._newest > HEAVIEST:
            self._num_longer = [weight / self._newest for weight in self._num_longer]
            self._sum_longer = [total / self._newest for total in self._sum_longer]
            self._newest = 1.0
        weight, total = self._newest, self._newest * num_tokens
        numbers, sums = self._num_longer, self._sum_longer
        for bucket in range(bucket_of(num_tokens) + 1):
            numbers[bucket] += weight
            sums[bucket] += total

    def num_left(self, num_tokens: int, most: int) -> int:
        """Tokens that an answer of `num_tokens` so far is expected to get still, 1 to `most`.

        The mean of the longer ones; where hardly any was longer, as many again.
        """
        bucket, newest = bucket_of(num_tokens + 1), self._newest
        guess = num_tokens + max(num_tokens, FIRST_GUESS)
        expected = (self._sum_longer[bucket] + newest * guess) / (self._num_longer[bucket] + newest)
        return max(1, min(most, round(expected) - num_tokens))

    def survival(self, running: Mapping[int, int], guess: int) -> Survival:
        """What share of answers gets how long, if so many of each bucket are `running`."""
        newest = self._newest
        return Survival([weight / newest for weight in self._num_longer], running, guess)


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


def bucket_of(num_tokens: int) -> int:
    """The bucket of lengths in which `num_tokens` lies."""
    return SHORT[num_tokens] if num_tokens < len(SHORT) else _computed_bucket(num_tokens)


def _computed_bucket(num_tokens: int) -> int:
    return min(NUM_BUCKETS - 1, int(BUCKETS_PER_OCTAVE * log2(max(1, num_tokens))))


SHORT = tuple(_computed_bucket(num_tokens) for num_tokens in range(4096))
