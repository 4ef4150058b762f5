"""Knows: who of a queue is admitted first for what the cache holds of it, and whom nobody passes for that.

Does not know: blocks, seats or what fits.

    queue     |-- 1 --|-- 2 --|-- 3: most cached --|      now 3 reads a few tokens; after 1 and 2, whose blocks take the
               may wait so many tokens more                place of what it would have found, all of them

Each is passed by others only while these together compute no more than it has to compute itself, and `MAX_WARMER`
times at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

MAX_WARMER = 64  # who find more of themselves in the cache may pass one that waits
WINDOW = 64  # of a queue, who are looked at


class Standing(NamedTuple):
    """One of a queue: tokens found in the cache, tokens to compute, tokens that others may still compute before it."""

    num_cached: int
    num_missing: int
    num_patient: int
    priority: int = 0


def warmest(queue: Iterable[Standing]) -> int:
    """The number of whoever goes first: who has most cached, of those whom everyone before it can let pass.

    A lower priority is never passed by a higher one, and of two alike the first goes. `queue` is read no further than
    to one who can let nobody pass.
    """
    best, most = 0, -1
    patient, urgent = inf, inf
    for number, each in enumerate(queue):
        if each.num_cached > most and each.num_missing <= patient and each.priority <= urgent:
            best, most = number, each.num_cached
        patient, urgent = min(patient, each.num_patient), min(urgent, each.priority)
        if patient < 1:
            break
    return best
