"""Knows: who computes how many tokens in the step that is being made, and who makes way. Does not know: results.

    ordinary lane    those who run, oldest first; those who wait, while rows, tokens and blocks last
    flex lane        the same, of the rows, tokens and seconds that are left (`spare.py`)

The ordinary lane is served as if the other were not there: whoever is missing a block takes one from that lane first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from quire.scheduling import policy, sharing
from quire.scheduling.cost import CostModel, StepShape, shape_of_works
from quire.scheduling.holdings import Holdings
from quire.scheduling.lane import Lane
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.line import Line
from quire.scheduling.pace import ItlTarget, step_tokens
from quire.scheduling.seat import Seat
from quire.scheduling.spare import MOST_SLOWDOWN, SLOWDOWN, Spare
from quire.scheduling.tally import Tally
from quire.scheduling.usual import Usual
from quire.step import Work

# One step in so many is left to the ordinary lane alone: if all steps were as full, nobody could tell what it costs.
PROBE_EVERY = 9
# Alone, the flex lane may take at least so many times a step of one row: the weights are read for more than one.
LEAST_ALONE = 2.0


@dataclass(slots=True)
class Draft:
    """A step in the making: what is computed, for whom, and copied so far, and how many tokens it may still get."""

    tally: Tally
    num_left: int
    works: list[Work] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    def take(self, seats: list[Seat]) -> None:
        """Each of `seats` computes its work `again`: of whoever is steady the last step's, one token on."""
        for seat in seats:
            if seat.steady:
                work = seat.again
                work.start = seat.num_computed
                work.tokens = seat.drawn
        self.works += [seat.again for seat in seats]
        self.seats += seats


class Serving:
    """`draft(tally)` makes one step of what stands in the two lanes."""

    def __init__(
        self,
        limits: SchedulerLimits,
        holdings: Holdings,
        cost: CostModel,
        target: ItlTarget,
        ordinary: Lane,
        flex: Lane,
    ) -> None:
        self._limits = limits
        self._holdings = holdings
        self._pool = holdings.pool
        self._cost = cost
        self._target = target
        self._ordinary = ordinary
        self._flex = flex
        self._usual = Usual()  # ordinary steps while the flex lane is there
        self._num_beside = 0  # steps in which both lanes might have been
        self._allowance = 0.0  # share by which the next of them may be longer
        self._whole = sharing.Room(limits.max_num_seqs, holdings.pool.num_blocks)

    def draft(self, tally: Tally) -> Draft:
        """Who computes what next."""
        draft = Draft(tally, self._limits.max_num_batched_tokens)
        ordinary, flex = self._ordinary, self._flex
        for seat, hits, leaving in ordinary.entry.favoured():
            for other in leaving:
                self._put_back(other, ordinary.line, draft)
            self._admit(seat, hits, ordinary.line, draft)
        pressed = False
        if ordinary.line.running:
            running = ordinary.line.running
            others = [seat for seat in running if not seat.steady]  # whoever is owes one token
            num_owed = len(running) - len(others) + sum([seat.num_owed for seat in others])
            draft.num_left = self._step_tokens(others)
            grants = None if num_owed <= draft.num_left else self._share_out(draft.num_left)
            pressed = self._serve_running(ordinary.line, grants, draft)
        if draft.num_left and not pressed and ordinary.line.num_waiting:
            self._serve_waiting(draft)
        if flex.line.running or flex.line.num_waiting:
            self._serve_flex(draft)
        return draft

    def _serve_running(self, line: Line, grants: list[int] | None, draft: Draft) -> bool:
        """Give those who run, oldest first, what they are granted, or all that they owe; whether blocks ran short."""
        seats, size, pressed, num_others = line.running.copy(), self._limits.block_size, False, 0
        granted = {} if grants is None else dict(zip(seats, grants, strict=True))
        idle = {seat for seat, grant in granted.items() if not grant}
        # Whoever is steady and within a block goes on without being asked: in a full house nearly everyone.
        last = size - 1 if self._limits.early_blocks else size
        asked = [seat for seat in seats if not (seat.steady and 0 < seat.num_computed % size < last)]
        for seat in asked:
            if seat in idle or not seat.runs or (seat.steady and self._reaches(seat)):
                continue
            grant = seat.num_owed if grants is None else granted[seat]
            end = seat.num_computed + grant
            if grant and self._is_short(seat, end) and not self._take_back(seat, end, line, draft):
                pressed = True
                grant = grant if self._make_room(seat, end, line, draft) else 0
            if grant:
                seat.again = self._work(seat, grant, draft)
                num_others += 1
            else:
                idle.add(seat)
        if idle or draft.tally.num_preempted:
            seats = [seat for seat in seats if seat not in idle and seat.runs]
        draft.num_left -= len(seats) - num_others
        draft.take(seats)
        return pressed

    def _reaches(self, seat: Seat) -> bool:
        """Whether `seat`, which is steady, has a block for its next token: taken early, or now."""
        size, start = self._limits.block_size, seat.num_computed
        if len(seat.blocks) * size <= start and not self._holdings.extend(seat):
            return False
        if self._limits.early_blocks and (start + 1) % size == 0:
            self._holdings.extend(seat)
        return True

    def _serve_waiting(self, draft: Draft) -> None:
        """Admit ordinary sequences while rows, tokens and blocks last."""
        line = self._ordinary.line
        for seat, hits in self._ordinary.entry.newcomers():
            self._admit(seat, hits, line, draft)
            grant = min(seat.num_owed, draft.num_left)
            if self._is_short(seat, seat.num_computed + grant):
                self._take_back(seat, seat.num_computed + grant, line, draft)
            self._grant(seat, grant, draft)
            if not draft.num_left:
                return

    def _serve_flex(self, draft: Draft) -> None:
        """Give the flex lane what is left, and note how much longer the step becomes for it."""
        if not draft.works:
            self._fill(self._spare(draft), draft)
            return
        self._num_beside += 1
        if self._num_beside % PROBE_EVERY:
            spare = self._spare(draft)
            alone_s = spare.seconds
            self._fill(spare, draft)
            if alone_s:
                self._allowance -= min(self._allowance, spare.seconds / alone_s - 1.0)

    def _fill(self, spare: Spare, draft: Draft) -> None:
        """Newest tokens before prompts; admit while everyone who runs has had some."""
        line = self._flex.line
        owing = [seat for seat in line.running if seat.num_owed]
        oldest = owing[0] if spare.must_move and owing else None
        ahead = 0  # the oldest moves in any case, or those who draw could hold it up
        if oldest is not None and not _is_single(oldest):
            ahead = spare.prompt(oldest.num_computed, 1, oldest.num_rows)
        singles = [len(seat.tokens) for seat in line.running if _is_single(seat)]
        num_drawing = spare.singles(singles)
        is_left = num_drawing == len(singles)
        grants = []
        for seat in line.running:
            if _is_single(seat):
                grants.append(1 if num_drawing > 0 else 0)
                num_drawing -= 1
            elif seat is oldest:
                grants.append(ahead + spare.prompt(seat.num_computed + ahead, seat.num_owed - ahead, 0))
            else:
                grants.append(spare.prompt(seat.num_computed, seat.num_owed, seat.num_rows))
        pressed = self._serve_running(line, grants, draft)
        if pressed or not is_left or 0 in grants or not line.num_waiting:
            return
        for seat, hits in self._flex.entry.newcomers():
            start = len(hits) * self._limits.block_size
            grant = spare.prompt(start, len(seat.tokens) - start, seat.num_rows)
            if not grant:
                return
            self._admit(seat, hits, line, draft)
            self._grant(seat, grant, draft)

    def _spare(self, draft: Draft) -> Spare:
        """What the ordinary lane's part of the step leaves."""
        num_rows = self._limits.max_num_seqs - self._ordinary.num_rows
        num_tokens = self._limits.max_num_batched_tokens - sum([len(work.tokens) for work in draft.works])
        shape = shape_of_works(draft.works)
        limit_s = self._limit_s(shape)
        return Spare(self._cost, shape, num_rows, num_tokens, limit_s, must_move=not draft.works)

    def _limit_s(self, shape: StepShape) -> float:
        """How long the step may become: with ordinary sequences in it a little longer than without the flex lane."""
        alone_s = self._cost.predict(shape)
        if alone_s is None:
            return inf
        if shape.num_tokens:
            self._usual.note(alone_s)
            self._allowance = min(MOST_SLOWDOWN, self._allowance + SLOWDOWN)
            return min((1.0 + self._allowance) * alone_s, max(alone_s, self._target.seconds(alone_s)))
        one_s = self._cost.predict(StepShape(1, 1, 1)) or inf
        usual_s = self._usual.long_s
        # Whoever comes waits for the end of this step, as for that of an ordinary one.
        return min(self._target.seconds(one_s), inf if usual_s is None else max(usual_s, LEAST_ALONE * one_s))

    def _grant(self, seat: Seat, grant: int, draft: Draft) -> None:
        """`seat`, who has just come to run and for whom there are blocks enough, computes `grant` tokens."""
        draft.works.append(self._work(seat, grant, draft))
        draft.seats.append(seat)

    def _work(self, seat: Seat, grant: int, draft: Draft) -> Work:
        """What `seat`, for whom there are blocks enough, computes with `grant` tokens."""
        tally, start = draft.tally, seat.num_computed
        if (copy := self._holdings.grow(seat, start + grant)) is not None:
            draft.copies.append(copy)
        if seat.num_prompt > start:
            tally.num_prompt_tokens += min(grant, seat.num_prompt - start)
        if start < seat.num_reached:
            again = min(grant, seat.num_reached - start)
            tally.num_repeated_tokens += 0 if seat.request.flex else again
            tally.num_yielded_tokens += again if seat.request.flex else 0
        draft.num_left -= grant
        return seat.work(grant)

    def _step_tokens(self, others: list[Seat]) -> int:
        """Tokens for the next step: all that are allowed, unless those who speak would wait too long for prompts.

        `others` are those who run and are not steady.
        """
        line, most = self._ordinary.line, self._limits.max_num_batched_tokens
        reading = [seat for seat in others if seat.num_owed > 1]
        if not reading and not line.num_waiting:
            return most
        num_held = self._holdings.num_filled
        if self._flex.line.running:
            num_held = sum([seat.num_computed for seat in line.running])
        num_held -= sum([seat.num_computed for seat in reading])  # they do not speak, and need no time between tokens
        start = reading[0].num_computed if reading else 0
        num_speaking = len(line.running) - sum([seat.num_owed != 1 for seat in others])
        return step_tokens(self._cost, num_speaking, max(0, num_held), start, most, self._target)

    def _share_out(self, budget: int) -> list[int]:
        running, active = self._ordinary.line.running, self._ordinary.accounts.active
        owed = [seat.num_owed for seat in running]
        if 0 in owed:  # beams that know what may follow them
            running = [seat for seat, count in zip(running, owed, strict=True) if count]
        standing = sharing.standing(running, active, self._whole, self._limits.block_size)
        grants = iter(policy.share_out([count for count in owed if count], budget, standing))
        return [next(grants) if count else 0 for count in owed]

    def _is_short(self, seat: Seat, end: int) -> bool:
        return self._holdings.num_missing(seat, end) > self._pool.num_idle

    def _take_back(self, seat: Seat, end: int, line: Line, draft: Draft) -> bool:
        """Put back flex sequences until the ordinary `seat` can grow to `end`, those who lose the least work first;
        False if it still cannot."""
        flex = self._flex.line
        if line is flex:
            return False
        for other in _cheapest(flex.running, self._holdings):
            if other.waits or other.asleep:
                continue  # it went with its company
            self._put_back(other, flex, draft)
            if not self._is_short(seat, end):
                return True
        return False

    def _make_room(self, seat: Seat, end: int, line: Line, draft: Draft) -> bool:
        """Put back whoever stands behind `seat` and loses the least work, until it can grow to `end`; False if nobody
        does: it then waits where it is and keeps what it computed, unless one before it needs the blocks."""
        while self._is_short(seat, end):
            behind = [each for each in line.running[line.running.index(seat) + 1 :] if each not in seat.company]
            if not behind:
                return False
            behind.reverse()  # of those that lose alike the last goes
            self._put_back(min(behind, key=self._holdings.num_lost), line, draft)
        return True

    def _put_back(self, seat: Seat, line: Line, draft: Draft) -> None:
        first, *others = seat.company or (seat,)
        for each in (first, *others):
            each.num_reached = max(each.num_reached, each.num_computed)
            self._holdings.let_go(each)
        for each in others:
            if not each.asleep:
                line.leave(each)
                first.fill(first.num_rows + each.num_rows)
                each.asleep = True
        line.put_back(first)
        draft.tally.num_preempted += 1

    def _admit(self, seat: Seat, hits: list[int], line: Line, draft: Draft) -> None:
        line.admit(seat)
        self._holdings.adopt(seat, hits)
        draft.tally.num_cached_tokens += seat.num_computed
        if not seat.started:
            seat.started = True
            seat.num_cached = seat.num_computed
            seat.account.charge(policy.prompt_charge(seat.num_prompt - seat.num_cached))


def _is_single(seat: Seat) -> bool:
    """It owes one token and fills one row: a short prompt of several samples does not."""
    return seat.num_owed == 1 and seat.num_rows == 1


def _cheapest(running: Iterable[Seat], holdings: Holdings) -> list[Seat]:
    """Those who lose the least work first, of two alike the younger."""
    younger_first = reversed(list(running))
    return sorted(younger_first, key=holdings.num_lost)
