"""Knows: what the slots of the KV memory are used for while requests run. Does not know: who reserved them, or why.

    |------------------------------ the memory ------------------------------|
    |-- held --|-- reserved: a token --|-- fragmented: reserved --|-- idle --|
    |  a token |   of this request     |   and never used by      |          |
    |          |   will come here      |   this request           |          |

After the categories of Kwon et al. 2023 ("Efficient Memory Management for Large Language Model Serving with
PagedAttention", figure 2). A slot is held from the step that computes it. Idle memory in pieces too small for anyone
counts as idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quire.events import CacheUse
from quire.request import Sequence as Running
from quire.step import Step


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Shares of the whole memory, weighted by time in which something ran; with idle memory they add up to 1."""

    held_share: float
    reserved_share: float
    fragmented_share: float

    @property
    def waste_share(self) -> float:
        """Share of what is taken that holds no token."""
        taken = self.held_share + self.reserved_share + self.fragmented_share
        return 1 - self.held_share / taken if taken else 0.0


class Meter:
    """Adds up slot-seconds. `slots_in_the_end` says how many slots each request will have filled when it ends."""

    def __init__(self, slots_in_the_end: Mapping[str, int]) -> None:
        self.seconds = self.running_s = 0.0
        self.peak_running = 0
        self._in_the_end = slots_in_the_end
        self._held = self._reserved = self._taken = self._whole = 0.0

    def measure(self, use: CacheUse, running: Sequence[Running], step: Step, seconds: float) -> None:
        """Count a step that was scheduled, and took `seconds`; `use` is from before it is settled."""
        size = use.block_size
        news = {work.seq_id: len(work.tokens) for work in step.works}
        taken, held, to_come = use.num_used * size, use.num_used * size - use.num_wasted_slots, 0
        for sequence in running:
            count = news.get(sequence.id, 0)
            held += count
            will_fill = min(self._in_the_end[sequence.request.id], len(sequence.blocks) * size)
            to_come += max(0, will_fill - sequence.num_computed - count)
        self.seconds += seconds
        self.running_s += seconds * len(running)
        self.peak_running = max(self.peak_running, len(running))
        self._whole += seconds * use.num_blocks * size
        self._taken += seconds * taken
        self._held += seconds * held
        self._reserved += seconds * to_come

    @property
    def use(self) -> MemoryUse:
        """What was measured until now."""
        whole = self._whole or 1.0
        fragmented = max(0.0, self._taken - self._held - self._reserved)
        return MemoryUse(self._held / whole, self._reserved / whole, fragmented / whole)
