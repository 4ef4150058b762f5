"""Continuous batching with contiguous reservation, after Orca (Yu et al. 2022, "Orca: A Distributed Serving System for
Transformer-Based Generative Models", OSDI).

1. First come, first served: a request begins as soon as a row and a free piece of KV memory are there, in the middle
   of others' answers. One that does not fit holds up those behind it.
2. A request begins with memory for `reserve_tokens` in one piece (Orca's maximum length; how long an answer will be
   nobody knows), or for its own longest length if that is more. It keeps all of it until it ends.
3. Each step draws a token for everyone whose prompt is read, and reads prompts, oldest first, with what the step's
   budget leaves. (Orca never splits a prompt. Splitting where the budget ends is kinder: no step is left half empty.)

Knows: those rules. Does not know: kernels; it has ours.
"""

from __future__ import annotations

from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.seat import Seat
from quire.sim.peers.reserving import Reserving
from quire.step import Work


class ContinuousReserving(Reserving):
    """`reserve_tokens` for each who runs; not more than the whole memory."""

    def __init__(self, limits: SchedulerLimits, num_blocks: int, reserve_tokens: int) -> None:
        super().__init__(limits, num_blocks)
        self._reserve_blocks = min(num_blocks, limits.num_blocks(reserve_tokens))

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.limits.max_num_seqs:
            seat = self._waiting[0]
            own = self.limits.num_blocks(seat.request.max_total_tokens - 1)
            run = self._memory.take(max(own, self._reserve_blocks))
            if run is None:
                return
            seat.blocks = run
            self._running.append(self._waiting.popleft())

    def _works(self) -> list[Work]:
        works: list[Work] = []
        budget = self.limits.max_num_batched_tokens
        for seat in self._running:
            grant = min(seat.num_owed, budget)
            if not grant:
                break
            works.append(seat.work(grant))
            budget -= grant
        return works

    def _end(self, seat: Seat) -> None:
        self._memory.give_back(seat.blocks)
