"""Knows: what share of answers gets how long, and what that says of those that run. Does not know: who they are.

    share  1 |-----.__                     those that ended say how long they were; those that run, that they are longer
             |        `--.______________   than they are now (Kaplan and Meier 1958), a bucket of lengths at a time
             |                         |   beyond the longest seen nobody is taken to end before twice that length
           0 +-------------------------+-> tokens

Usage over time is the sum of what each is expected to hold; to its mean some deviations are added, as if answers were
as long as they are independently of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from math import log2, sqrt

BUCKETS_PER_OCTAVE = 4
NUM_BUCKETS = 32 * BUCKETS_PER_OCTAVE
HORIZONS = tuple(round(16 * 2 ** (number / 2)) for number in range(27))  # steps from now that are looked at
DEVIATIONS = 1.5
LEAST_SEEN = 1.0  # answers of a length or longer, before anything is made of them


class Survival:
    """`share_beyond(n)` of all answers are longer than n tokens."""

    def __init__(self, num_longer: SequenceOf[float], running: Mapping[int, int], guess: int) -> None:
        """`num_longer` answers of each bucket or longer have ended, so many of each bucket are `running`; nobody is
        taken to end before `guess` tokens without having been seen to."""
        counts = [running.get(bucket, 0) for bucket in range(NUM_BUCKETS)]
        num_beyond, last = float(sum(counts)), 0
        shares = [1.0]
        for bucket, count in enumerate(counts[:-1]):
            # Those who run in a bucket have seen half of it.
            seen = num_longer[bucket] + num_beyond - 0.5 * count
            num_ended = num_longer[bucket] - num_longer[bucket + 1]
            shares.append(shares[-1] * max(1e-3, 1.0 - num_ended / seen) if seen > 1e-9 else shares[-1])
            last = bucket + 1 if seen > LEAST_SEEN else last
            num_beyond -= count
        self._shares = shares
        self._reach = max(guess, round(2 * 2 ** (last / BUCKETS_PER_OCTAVE)))
        self._ahead: dict[int, list[float]] = {}

    def share_beyond(self, num_tokens: float) -> float:
        """Of all answers."""
        place = BUCKETS_PER_OCTAVE * log2(max(1.0, num_tokens))
        bucket = min(NUM_BUCKETS - 2, int(place))
        low, high = self._shares[bucket], self._shares[bucket + 1]
        return low + min(1.0, place - bucket) * (high - low)

    def ahead(self, bucket: int) -> list[float]:
        """Shares of those that run in `bucket` that will have got so much longer, for each of `HORIZONS`; nobody gets
        twice as long as it is, or as any was."""
        if bucket not in self._ahead:
            now = 2 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE)
            whole, reach = self.share_beyond(now), max(self._reach, 2 * now)
            self._ahead[bucket] = [
                self.share_beyond(now + more) / whole if now + more <= reach else 0.0 for more in HORIZONS
            ]
        return self._ahead[bucket]


class Usage:
    """Blocks that sequences are expected to hold at each of `HORIZONS`, each drawing a token a step."""

    def __init__(self, survival: Survival, block_size: int) -> None:
        self._survival = survival
        self._size = block_size
        self._num_held = 0
        self._all = [0.0] * len(HORIZONS)  # if nobody ended sooner than it must
        self._means = [0.0] * len(HORIZONS)
        self._variances = [0.0] * len(HORIZONS)

    def add(self, bucket: int, num_horizons: int, blocks: SequenceOf[int]) -> None:
        """More sequences: all in `bucket`, over after `num_horizons`, holding `blocks`."""
        whole, means, variances, size = self._all, self._means, self._variances, self._size
        count, held = len(blocks), sum(blocks)
        squares = sum([each * each for each in blocks])
        self._num_held += held
        shares = self._survival.ahead(bucket)
        for number in range(min(num_horizons, len(HORIZONS))):
            if (share := shares[number]) == 0.0:
                break
            grown = HORIZONS[number] / size
            whole[number] += held + count * grown
            means[number] += share * (held + count * grown)
            variances[number] += share * (1.0 - share) * (squares + grown * (2.0 * held + count * grown))

    def copy(self) -> Usage:
        """The same, to be added to."""
        other = Usage(self._survival, self._size)
        other._num_held, other._all = self._num_held, self._all.copy()
        other._means, other._variances = self._means.copy(), self._variances.copy()
        return other

    def growth(self) -> float:
        """The most blocks beyond those held now that there will be, but for bad luck."""
        peak = 0.0
        for whole, mean, variance in zip(self._all, self._means, self._variances, strict=True):
            peak = max(peak, min(whole, mean + DEVIATIONS * sqrt(variance)))
        return max(0.0, peak - self._num_held)
