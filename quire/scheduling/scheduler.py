"""Knows: how many tokens each sequence computes in the next step. Does not know: text, arrays, clocks, hash order.

One rule: *computed tokens catch up with tokens*. There is no prefill and no decode; a step grants a sequence some of
the tokens that it owes, and a sequence that owes nothing but its newest token draws another:

    0 ............ num_computed ............ len(tokens)
    |-- K, V held --|-- granted --|-- next step --|  draw when the grant reaches the end

Chunked prompts, prefix hits (computed by someone else) and preemption (nothing computed any more) are the same rule.
"""

from __future__ import annotations

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.errors import InternalError, RequestError
from quire.events import CacheUse, StepStats
from quire.request import Finish, Request, Sequence
from quire.scheduling import deltas, policy
from quire.scheduling.admission import refusal
from quire.scheduling.cost import CostModel
from quire.scheduling.holdings import Holdings
from quire.scheduling.id_range import OUTSIDE, is_within
from quire.scheduling.lane import Lane, two_lanes
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.outlook import Outlook
from quire.scheduling.pace import ItlTarget
from quire.scheduling.resuming import seats_of
from quire.scheduling.search import Search
from quire.scheduling.seat import Seat
from quire.scheduling.serving import Serving
from quire.scheduling.tally import Tally
from quire.step import Delta, Step, StepResult, TokenLogprob, Work, WorkResult


class Scheduler:
    """add, abort, schedule, settle: a step is settled before the next one is scheduled.

    What comes out depends on what went in and on nothing else. Work per step is O(tokens granted + running).
    """

    def __init__(
        self,
        limits: SchedulerLimits,
        pool: BlockPool,
        prefix: PrefixIndex | None = None,
        policy_name: str = "fair",
        itl_target: ItlTarget | None = None,
        cost: CostModel | None = None,
    ) -> None:
        self.limits = limits
        self.cost = cost or CostModel()
        self._pool = pool
        self._holdings = Holdings(pool, prefix, limits.block_size)
        self._rule = policy.policy_named(policy_name)
        self._ordinary, self._flex = two_lanes(limits, self._rule, self._holdings)
        target = itl_target or ItlTarget()
        self._serving = Serving(limits, self._holdings, self.cost, target, self._ordinary, self._flex)
        self.outlook = Outlook(limits, self._rule, self._holdings, self.cost, target, self._ordinary, self._flex)
        self._families: dict[str, dict[int, Seat]] = {}
        self._seats: dict[int, Seat] = {}
        self._searches: dict[str, Search] = {}
        self._num_seats = self._num_arrivals = self._num_steps = 0
        self._open_step: int | None = None
        self._open_seats: list[Seat] = []
        self._tally = Tally()

    @property
    def has_work(self) -> bool:
        """True while anyone is here."""
        return bool(self._seats)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Who holds a place in the steps, the ordinary ones first, oldest first; for observers, who change nothing."""
        return (*self._ordinary.line.running, *self._flex.line.running)

    @property
    def num_running(self) -> int:
        """Sequences that hold a place in the steps; n samples count as one until their prompt is computed."""
        return len(self._ordinary.line.running) + len(self._flex.line.running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a place, those put back included."""
        return self._ordinary.line.num_waiting + self._flex.line.num_waiting

    def add(self, request: Request, now: float = 0.0) -> None:
        """Let `request` wait, or raise the `RequestError` that says why it can never be served."""
        error = refusal(request, self.limits, self._pool.num_blocks)
        if error is None and request.id in self._families:
            error = RequestError("a request with this id is already here", got=request.id, param="id")
        if error is not None:
            raise error
        seats = seats_of(request, self._new_id)
        if request.beams is not None:
            self._searches[request.id] = Search(seats[0], request.beams)
        lane = self._lane(seats[0])
        self._families[request.id] = {index: seat for seat in seats for index in seat.indices}
        for seat in seats:
            seat.account = lane.accounts.enter(request.tenant if self._rule.by_tenant else "", request.weight)
            seat.place = policy.place(self._rule, now, self._num_arrivals, request.priority, seat.index)
            seat.turn = policy.turn(self._rule, now, self._num_arrivals, request.priority, seat.index)
            self._seats[seat.id] = seat
            lane.line.join(seat)
        self._num_arrivals += 1

    def name_of(self, seq_id: int) -> str | None:
        """The id of the request whose sequence this is; None if there is no such sequence (any more)."""
        seat = self._seats.get(seq_id)
        return None if seat is None else seat.name

    def abort(self, request_id: str, index: int | None = None, served: bool = False) -> list[Delta]:
        """End a request, or only sample `index` of it, now; what has already ended, or never was, says nothing.

        A search ends as a whole.

        `served`: whoever asked has all that he wanted, so what was computed is not counted as wasted.
        """
        if self._open_step is None:
            self._tally = Tally()  # what the last step did has been told
        if (search := self._searches.get(request_id)) is not None:
            self._tally.num_aborted_tokens += 0 if served else sum([seat.num_own for seat in search.seats])
            return self._end_search(search, search.last_words(Finish.ABORT))
        family = self._families.get(request_id, {})
        ending = [number for number in sorted(family) if index is None or number == index]
        if not served:
            self._tally.num_aborted_tokens += sum([seat.num_own for seat in {family[number] for number in ending}])
        return [self._end_sample(family[number], number, Finish.ABORT) for number in ending]

    def schedule(self, now: float) -> Step | None:
        """What to compute next, None if nobody is here. `now` is the time on the clock of `add`, in seconds."""
        if self._open_step is not None:
            raise InternalError("a step was scheduled before the last one was settled", got=self._open_step)
        if not self._seats:
            return None
        self._tally = Tally()
        draft = self._serving.draft(self._tally)
        if not draft.works:
            raise InternalError("nobody can go on", got=f"{self.num_running} running, {self.num_waiting} waiting")
        self._num_steps += 1
        self._open_step, self._open_seats = self._num_steps, draft.seats
        return Step(self._num_steps, tuple(draft.works), tuple(draft.copies))

    def settle(self, step: Step, result: StepResult, now: float) -> list[Delta]:
        """Take in what `step` computed; results of sequences that were aborted meanwhile are dropped.

        An engine whose runner failed as a whole settles the step with one error for each of its works.
        """
        if self._open_step != step.id or len(step.works) != len(result.works):
            raise InternalError("this is not the result of the step under way", got=step.id, allowed=self._open_step)
        self._open_step = None
        news: list[Delta] = []
        add, new, num_steady, vocab_size = news.append, object.__new__, 0, self.limits.vocab_size
        for seat, work, outcome in zip(self._open_seats, step.works, result.works, strict=True):
            drawn = outcome.tokens
            if not seat.steady or outcome.error is not None or len(drawn) != 1 or outcome.forced:
                if seat.id in self._seats:
                    self._settle_one(seat, work, outcome, news)
                continue
            # The rest of this loop is `_settle_one` for the case that a full house repeats hundreds of times a step.
            token = drawn[0]
            if not 0 <= token < vocab_size or (outcome.logprobs and not is_within(outcome, vocab_size)):
                self._settle_one(seat, work, OUTSIDE, news)
                continue
            num_steady += 1
            computed = seat.num_computed + 1
            seat.num_computed = computed
            account = seat.account
            account.service += account.output_price + account.held_price * computed
            seat.tokens.append(token)
            if (computed >= seat.next_stop or token in seat.end_ids) and self._stops(seat, token):
                self._finish(seat, outcome, news)
                continue
            seat.drawn = drawn
            delta = new(Delta)  # its __init__ would cost as much as the rest
            delta.request_id = seat.name
            delta.index = seat.index
            delta.tokens = drawn
            delta.logprobs = outcome.logprobs
            delta.prompt_logprobs = ()
            delta.num_cached = seat.num_cached
            delta.finish = delta.stop_token = delta.error = None
            add(delta)
        self._holdings.num_filled += num_steady
        self._tally.num_output_tokens += num_steady
        return news

    def fail(self, request_id: str, error: str) -> list[Delta]:
        """End what is left of a request with `error`; what it computed nobody else will find."""
        seats = dict.fromkeys(self._families.get(request_id, {}).values())
        for seat in seats:
            self._holdings.spoil(seat)
            self._tally.num_failed_tokens += seat.num_own
        if (search := self._searches.get(request_id)) is not None:
            news = self._end_search(search, search.last_words(Finish.ERROR, error))
        else:
            ending = [(seat, index) for seat in seats for index in seat.indices]
            news = [self._end_sample(seat, index, Finish.ERROR, error) for seat, index in ending]
        self._tally.num_finished += len(news)
        return news

    def reset_prefix_cache(self) -> None:
        """Forget every prefix that no sequence holds now: benchmarks begin with an empty cache."""
        self._holdings.forget_cached()

    def stats(self, seconds: float = 0.0, predicted_s: float | None = None) -> StepStats:
        """The last step (or the abort after it) in numbers, and who and what is left after it."""
        tally = self._tally
        return StepStats(
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            num_prompt_tokens=tally.num_prompt_tokens,
            num_output_tokens=tally.num_output_tokens,
            num_cached_tokens=tally.num_cached_tokens,
            num_preempted=tally.num_preempted,
            num_finished=tally.num_finished,
            seconds=seconds,
            cache=self.cache_use(),
            predicted_s=predicted_s,
            num_repeated_tokens=tally.num_repeated_tokens,
            num_aborted_tokens=tally.num_aborted_tokens,
            num_failed_tokens=tally.num_failed_tokens,
            num_yielded_tokens=tally.num_yielded_tokens,
            num_flex_running=len(self._flex.line.running),
            num_flex_waiting=self._flex.line.num_waiting,
            faults=tuple(tally.faults),
            num_repeating=tally.num_repeating,
        )

    def cache_use(self) -> CacheUse:
        """The KV pool now."""
        pool, size = self._pool, self.limits.block_size
        num_wasted_slots = pool.num_used * size - self._holdings.num_filled
        return CacheUse(pool.num_blocks, pool.num_used, pool.num_cached, pool.num_free, size, num_wasted_slots)

    def check(self) -> None:
        """Raise `InternalError` if a law is broken: the line's order, the blocks' conservation, who belongs to whom."""
        lines = self._ordinary.line, self._flex.line
        for line in lines:
            line.check()
        seats = [seat for line in lines for seat in (*line.running, *line.waiting())]
        seats += [other for seat in seats for other in seat.company if other.asleep]
        self._holdings.check(seats)
        samples = {(name, index): seat for name, family in self._families.items() for index, seat in family.items()}
        stood_for = {(seat.request.id, index): seat for seat in seats for index in seat.indices}
        if samples != stood_for or self._seats != {seat.id: seat for seat in seats}:
            raise InternalError("a sample is known and does not stand in the line, or stands there and is not known")

    def _settle_one(self, seat: Seat, work: Work, outcome: WorkResult, news: list[Delta]) -> None:
        if outcome.error is None and not is_within(outcome, self.limits.vocab_size):
            outcome = OUTSIDE
        if outcome.error is not None:
            self._tally.note(outcome.error)
            self._holdings.spoil(seat)
            self._tally.num_failed_tokens += seat.num_own + len(work.tokens)
            if (search := self._searches.get(seat.name)) is not None:
                ends = self._end_search(search, search.last_words(Finish.ERROR, outcome.error))
                self._tally.num_finished += len(ends)
                news += ends
                return
            indices = seat.indices
            news.extend(self._end_sample(seat, index, Finish.ERROR, outcome.error) for index in indices)
            self._tally.num_finished += len(indices)
            return
        self._holdings.advance(seat, len(work.tokens))
        told = () if work.prompt_logprobs is None else deltas.prompt_logprobs(seat, work, outcome)
        if work.draw is not None and seat.company:
            self._search(seat, outcome.logprobs[0], told, news)
        elif work.draw is not None:
            self._draw(seat, work.draw.indices, outcome, told, news)
            seat.settle_down(bool(seat.blocks) and self._holdings.is_shared(seat), self.limits.block_size)
        elif told:
            news.append(deltas.told_only(seat, told))

    def _draw(
        self,
        seat: Seat,
        indices: tuple[int, ...],
        outcome: WorkResult,
        told: tuple[TokenLogprob, ...],
        news: list[Delta],
    ) -> None:
        """Give every sample its token; samples that shared one row of logits part here."""
        if len(outcome.tokens) != len(indices):
            raise InternalError("a draw has tokens missing", got=len(outcome.tokens), allowed=len(indices))
        family = self._families[seat.request.id]
        if len(seat.indices) > 1:
            self._part(seat, family)
        for number, index in enumerate(indices):
            sample = family.get(index)
            if sample is None:
                continue
            sample.account.charge(policy.draw_charge(sample.num_computed))
            delta = deltas.drawn(sample, outcome, number, told)
            told = ()
            news.append(delta)
            self._tally.num_output_tokens += len(delta.tokens)
            self._tally.num_repeating += not sample.num_computed % self.limits.block_size and sample.gets_stuck()
            if delta.finish is not None:
                self._end_well(sample)

    def _stops(self, seat: Seat, token: int) -> bool:
        """A steady sequence has filled a block, or ends with `token`, which is appended: True if it ends."""
        size = self.limits.block_size
        if not seat.num_computed % size:
            self._holdings.offer(seat)
            self._tally.num_repeating += seat.gets_stuck()
        seat.find_next_stop(size)
        return len(seat.tokens) >= seat.last_len or token in seat.end_ids

    def _finish(self, seat: Seat, outcome: WorkResult, news: list[Delta]) -> None:
        """The last word of a steady sequence, whose token is already appended."""
        news.append(deltas.spoken(seat, outcome))
        self._end_well(seat)

    def _end_well(self, seat: Seat) -> None:
        self._tally.num_finished += 1
        if not seat.request.params.ignore_eos:
            self._lane(seat).entry.lengths.record(seat.num_output)
        self._remove(seat)

    def _part(self, seat: Seat, family: dict[int, Seat]) -> None:
        """Let each of `seat`'s samples go its own way from here, all holding the same blocks."""
        siblings = [seat.sibling(self._new_id(), index) for index in seat.indices[1:]]
        seat.num_shared = seat.num_prompt if siblings else 0
        seat.indices = (seat.index,)
        seat.fill(1)
        for sibling in siblings:
            self._holdings.fork(seat, sibling)
            sibling.account.num_seats += 1
            self._seats[sibling.id] = family[sibling.index] = sibling
        self._lane(seat).line.follow(siblings)

    def _search(self, seat: Seat, following: TokenLogprob, told: tuple[TokenLogprob, ...], news: list[Delta]) -> None:
        """What may follow one beam is known; with the last of them the search goes on, or ends."""
        search = self._searches[seat.name]
        if told:
            news.append(deltas.told_only(seat, told))
        self._lane(seat).line.follow(search.wake(self._holdings))
        if not search.take(seat, following):
            return
        self._tally.num_output_tokens += len(search.beams)
        for each in search.seats:
            each.account.charge(policy.draw_charge(each.num_computed))
        for leaving in search.go_on(self._holdings, self._spawn):
            self._remove(leaving)
        if not search.is_over:
            return
        answers = search.answers()
        self._tally.num_finished += len(answers)
        if not seat.request.params.ignore_eos:
            self._lane(seat).entry.lengths.record(seat.num_output + 1)
        news += self._end_search(search, answers)

    def _spawn(self, seat: Seat, index: int) -> Seat:
        """Another beam beside `seat`; what it holds comes later."""
        beam = seat.sibling(self._new_id(), index)
        beam.account.num_seats += 1
        self._seats[beam.id] = self._families[seat.name][index] = beam
        self._lane(seat).line.follow([beam])
        return beam

    def _end_search(self, search: Search, news: list[Delta]) -> list[Delta]:
        del self._searches[search.beams[0].seat.name]
        for seat in search.seats:
            self._remove(seat)
        return news

    def _end_sample(self, seat: Seat, index: int, finish: Finish, error: str | None = None) -> Delta:
        """End one of the samples that `seat` stands for, and `seat` with the last of them."""
        delta = deltas.last_words(seat, index, finish, error)
        if len(seat.indices) == 1:
            self._remove(seat)
        else:
            seat.indices = tuple(other for other in seat.indices if other != index)
            seat.index = seat.indices[0]
            seat.fill(len(seat.indices))
            del self._families[seat.request.id][index]
        return delta

    def _remove(self, seat: Seat) -> None:
        self._holdings.let_go(seat)
        seat.company = ()  # which holds `seat`: nothing is left that only the search for cyclic garbage would find
        lane = self._lane(seat)
        if not seat.asleep:
            lane.line.leave(seat)
        lane.accounts.leave(seat.account)
        del self._seats[seat.id]
        family = self._families[seat.request.id]
        del family[seat.index]
        if not family:
            del self._families[seat.request.id]

    def _lane(self, seat: Seat) -> Lane:
        return self._flex if seat.request.flex else self._ordinary

    def _new_id(self) -> int:
        self._num_seats += 1
        return self._num_seats
