"""Static batches, and one request at a time: a model's `generate` behind a queue, as naive servers are built.

1. First come, first served: when nothing runs, the first of those who wait become a batch, as many as there are rows
   and memory for. Nobody joins it later, and the next begins when all of it have ended.
2. A batch is a rectangle: every row has memory, in one piece, for the batch's longest prompt and the longest answer
   that anyone in it may ask for. All of it is given back at once.
3. Shorter prompts are padded to the longest, and the padding is computed. Prompts are read first, in steps as large as
   the budget; then every row draws a token a step. (Reading the padding again with every token drawn is left out.)
4. A row that has ended goes on being computed until the last has ended; what it draws is thrown away.

One at a time is this with a single row: nothing is padded and nobody waits for others to end.

Knows: those rules. Does not know: kernels; it has ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.seat import Seat
from quire.sim.peers.reserving import Reserving
from quire.step import Step, Work

PAD = 0


@dataclass(slots=True)
class Padding:
    """`num_left` tokens beside a prompt that are computed and looked at by nobody. They lie in the row's own memory,
    behind the prompt, where its answer will be."""

    id: int
    blocks: list[int]
    num_left: int
    num_computed: int = 0


class StaticBatches(Reserving):
    """At most `max_rows` at a time."""

    def __init__(self, limits: SchedulerLimits, num_blocks: int, max_rows: int) -> None:
        super().__init__(limits, num_blocks)
        self._max_rows = min(max_rows, limits.max_num_seqs, limits.max_num_batched_tokens)
        self._rows: list[Seat] = []
        self._dead: dict[int, Seat] = {}
        self._padding: dict[int, Padding] = {}

    def _admit(self) -> None:
        if self._rows:
            return
        while self._waiting and len(self._rows) < self._max_rows:
            batch = [*self._rows, self._waiting[0]]
            if len(batch) * self._row_blocks(batch) > self._memory.num_blocks:
                break
            self._rows.append(self._waiting.popleft())
        self._running = self._rows.copy()
        longest = max([seat.num_prompt for seat in self._rows])
        width = self._row_blocks(self._rows)
        for seat in self._rows:
            seat.blocks = self._memory.take(width) or []
            self._pad(seat, longest - seat.num_prompt)

    def _row_blocks(self, batch: list[Seat]) -> int:
        prompts = [seat.num_prompt for seat in batch]
        longest = max(prompts) + max([seat.request.max_tokens for seat in batch])
        # The last token is drawn, never computed: it needs no slot. Padding begins at a block of its own.
        return self.limits.num_blocks(longest - 1) + (min(prompts) < max(prompts))

    def _pad(self, seat: Seat, num_tokens: int) -> None:
        if num_tokens:
            behind = seat.blocks[self.limits.num_blocks(seat.num_prompt) :]
            padding = Padding(self._new_id(), behind, num_tokens)
            self._padding[padding.id] = padding

    def _works(self) -> list[Work]:
        works: list[Work] = []
        budget = self.limits.max_num_batched_tokens
        reading = [seat for seat in self._rows if seat.num_computed < seat.num_prompt]
        for seat in reading or (() if self._padding else self._rows):
            grant = min(seat.num_owed, budget)
            if grant:
                works.append(seat.work(grant))
            budget -= grant
        for padding in self._padding.values():
            grant = min(padding.num_left, budget)
            if grant:
                works.append(Work(padding.id, (PAD,) * grant, padding.num_computed, padding.blocks))
            budget -= grant
        return works

    def _end(self, seat: Seat) -> None:
        self._dead[seat.id] = seat
        seat.tokens[-1] = PAD  # what it would read next, if it still spoke

    def _settled(self, step: Step) -> None:
        for work in step.works:
            padding = self._padding.get(work.seq_id)
            if padding is not None:
                padding.num_left -= len(work.tokens)
                padding.num_computed += len(work.tokens)
                if not padding.num_left:
                    del self._padding[padding.id]
            elif work.seq_id in self._dead:
                self._idle(self._dead[work.seq_id], work)
        if not self._running:
            for seat in self._rows:
                self._memory.give_back(seat.blocks)
            self._rows = []
            self._dead.clear()
            self._padding.clear()

    def _idle(self, seat: Seat, work: Work) -> None:
        """A row that has ended was computed once more."""
        if work.start == seat.num_computed:
            seat.num_computed += len(work.tokens)
            seat.tokens.append(PAD)
