"""Knows: another engine's scheduling rules, to be replayed beside ours. Does not know: that engine's code, or a device.

`vllm`: the scheduler of vLLM's V1 engine as 0.32 ships it (prefix caching and chunked prefill on), told in our words
and built from our parts: blocks, prefix hits and steps are counted alike. `benchmarks/preemptions.py` compares it
with the real one, step by step:

    1  A step computes at most max_num_batched_tokens.
    2  Those who run come first, in the order in which they were admitted; each gets all that it owes, or what is left.
    3  Whoever needs a block that nobody has free puts back the last of those who run, until there is one; if that is
       itself, those behind it get nothing in this step.
    4  Who is put back loses all its blocks, whose full ones stay cached, and stands first among those who wait; it
       computes prompt and answer again, but for what it finds in the cache.
    5  If nobody was put back, those who wait are admitted in order of arrival, while rows and tokens last and there are
       idle blocks for the whole prompt, and for the answer so far of one that was put back. Only those of what it
       computes in this step are taken: what it still needs of its prompt, another may take meanwhile. The first that
       does not fit ends the step: nobody passes.
    6  Nothing more is kept back for those who run to grow, and nobody's length is guessed.
    7  Tenants, priorities and the time between tokens play no part.
"""

from __future__ import annotations

from collections import deque

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.errors import InternalError
from quire.events import CacheUse, StepStats
from quire.request import Request
from quire.scheduling import deltas
from quire.scheduling.admission import refusal
from quire.scheduling.cost import CostModel
from quire.scheduling.holdings import Holdings
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.seat import Seat
from quire.scheduling.tally import Tally
from quire.step import Delta, Step, StepResult, Work


class VllmScheduler:
    """The rules above behind the four verbs of our scheduler; requests of one sample."""

    def __init__(self, limits: SchedulerLimits, pool: BlockPool, prefix: PrefixIndex | None) -> None:
        self.cost = CostModel()
        self._limits = limits
        self._holdings = Holdings(pool, prefix, limits.block_size)
        self._running: list[Seat] = []
        self._waiting: deque[Seat] = deque()
        self._tally = Tally()
        self._num_seats = self._num_steps = 0

    @property
    def has_work(self) -> bool:
        """True while anyone is here."""
        return bool(self._running or self._waiting)

    def add(self, request: Request, now: float = 0.0) -> None:
        """Wait behind all others; `RequestError` if it can never be served."""
        error = refusal(request, self._limits, self._holdings.pool.num_blocks)
        if error is not None:
            raise error
        self._num_seats += 1
        self._waiting.append(Seat(self._num_seats, request, tokens=list(request.prompt)))

    def schedule(self, now: float) -> Step | None:
        """Rules 1 to 6."""
        if not self.has_work:
            return None
        self._tally = Tally()
        works: list[Work] = []
        budget = self._serve_running(works)
        if not self._tally.num_preempted:
            self._serve_waiting(works, budget)
        if not works:
            raise InternalError("nobody can go on", got=f"{len(self._running)} running, {len(self._waiting)} waiting")
        self._num_steps += 1
        return Step(self._num_steps, tuple(works))

    def settle(self, step: Step, result: StepResult, now: float) -> list[Delta]:
        """Take in what `step` computed."""
        seats = {seat.id: seat for seat in self._running}
        news: list[Delta] = []
        for work, outcome in zip(step.works, result.works, strict=True):
            seat = seats[work.seq_id]
            self._holdings.advance(seat, len(work.tokens))
            if work.draw is None:
                continue
            news.append(deltas.drawn(seat, outcome, 0, ()))
            self._tally.num_output_tokens += 1
            if news[-1].finish is not None:
                self._holdings.let_go(seat)
                self._running.remove(seat)
        return news

    def stats(self, seconds: float = 0.0) -> StepStats:
        """The last step in numbers."""
        pool, size, tally = self._holdings.pool, self._limits.block_size, self._tally
        num_wasted_slots = pool.num_used * size - self._holdings.num_filled
        return StepStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_prompt_tokens=tally.num_prompt_tokens,
            num_output_tokens=tally.num_output_tokens,
            num_cached_tokens=tally.num_cached_tokens,
            num_preempted=tally.num_preempted,
            seconds=seconds,
            cache=CacheUse(pool.num_blocks, pool.num_used, pool.num_cached, pool.num_free, size, num_wasted_slots),
            num_repeated_tokens=tally.num_repeated_tokens,
        )

    def _serve_running(self, works: list[Work]) -> int:
        budget, number = self._limits.max_num_batched_tokens, 0
        while number < len(self._running) and budget:
            seat = self._running[number]
            grant = min(seat.num_owed, budget)
            if not self._make_room(seat, seat.num_computed + grant):
                break
            works.append(self._work(seat, grant))
            budget -= grant
            number += 1
        return budget

    def _make_room(self, seat: Seat, end: int) -> bool:
        """Rule 3; False if `seat` itself had to go."""
        holdings = self._holdings
        while holdings.num_missing(seat, end) > holdings.pool.num_idle:
            last = self._running.pop()
            last.num_reached = max(last.num_reached, last.num_computed)
            holdings.let_go(last)
            self._waiting.appendleft(last)
            self._tally.num_preempted += 1
            if last is seat:
                return False
        return True

    def _serve_waiting(self, works: list[Work], budget: int) -> None:
        holdings = self._holdings
        while self._waiting and budget and len(self._running) < self._limits.max_num_seqs:
            seat = self._waiting[0]
            hits = holdings.match(seat)
            start = len(hits) * self._limits.block_size
            if self._limits.num_blocks(len(seat.tokens)) - len(hits) > holdings.num_idle_without(hits):
                return
            grant = min(len(seat.tokens) - start, budget)
            self._running.append(self._waiting.popleft())
            holdings.adopt(seat, hits)
            self._tally.num_cached_tokens += start
            works.append(self._work(seat, grant))
            budget -= grant

    def _work(self, seat: Seat, grant: int) -> Work:
        start, tally = seat.num_computed, self._tally
        self._holdings.grow(seat, start + grant)
        tally.num_prompt_tokens += max(0, min(grant, seat.num_prompt - start))
        tally.num_repeated_tokens += max(0, min(grant, seat.num_reached - start))
        return seat.work(grant)
