"""Knows: who of those waiting may run now, and who makes way for whom. Does not know: works, steps or results.

next in turn     fits: admitted        does not fit: looked past, for at most MAX_PASSED others in its whole wait,
                                       and by other tenants only as far as the bound on their service allows
of its tenant    who finds most of itself in the cache goes before it, within the bounds of `warm.py`
"""

from __future__ import annotations

from collections.abc import Iterator

from quire.scheduling import policy, sharing, warm
from quire.scheduling.accounts import Account, Accounts
from quire.scheduling.ahead import Ahead, Future
from quire.scheduling.growth import OutputLengths
from quire.scheduling.holdings import Holdings
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.line import Line
from quire.scheduling.policy import Policy
from quire.scheduling.seat import Seat
from quire.scheduling.sharing import Room

RETRY_STEPS = 16
# Tokens before anything is known: long answers begun in vain cost more than short ones begun a little later.
LEAST_GUESS, MOST_GUESS = 64, 1024
GUESSES = 32  # that a small pool holds at least


class Entry:
    """Looks, and moves nobody: whoever asks admits and puts back before asking on."""

    def __init__(
        self,
        limits: SchedulerLimits,
        rule: Policy,
        line: Line,
        accounts: Accounts,
        holdings: Holdings,
        before: Line | None = None,
        behind: Line | None = None,
    ) -> None:
        """`before` this line come the sequences of another, and those `behind` it make way for it."""
        self._limits = limits
        self._rule = rule
        self._line = line
        self._before = before
        self._behind = behind
        self._accounts = accounts
        self._holdings = holdings
        self.lengths = OutputLengths()
        self._whole = Room(limits.max_num_seqs, holdings.pool.num_blocks)
        self._watermark = policy.watermark(holdings.pool.num_blocks)
        num_slots = holdings.pool.num_blocks * limits.block_size
        self._guess = max(LEAST_GUESS, min(MOST_GUESS, num_slots // GUESSES))
        self._stuck_at = -1
        self._patience = 0

    def newcomers(self) -> Iterator[tuple[Seat, list[int]]]:
        """Who is to be admitted, one after the other, with the blocks that hold its beginning already."""
        line = self._line
        if self._num_moves == self._stuck_at and self._patience:
            self._patience -= 1
            return
        present = self._present()
        if len(present) >= self._limits.max_num_seqs:
            return
        rows = self._limits.max_num_seqs - sum([seat.num_rows for seat in present])
        if rows < 1:
            return
        ahead = self._ahead(present)
        passed: list[Seat] = []
        skipped: dict[Account, int] = {}
        cooler: list[Seat] = []
        looks_for_warmer = self._rule.may_pass and self._holdings.prefix is not None
        cached: dict[int, int] = {}  # of whom was looked at
        while rows and (seat := line.next(skipped)) is not None:
            if looks_for_warmer:
                seat, cooler = self._warmest(seat, skipped.get(seat.account, 0), cached)
            hits = self._holdings.match(seat)
            if seat.num_rows <= rows and self._fits(seat, hits, ahead) and self._may_pass(seat, passed):
                for other in passed:
                    other.num_passed += 1
                for other in cooler:
                    other.num_warmer += 1
                    other.num_warmer_tokens += len(seat.tokens) - len(hits) * self._limits.block_size
                yield seat, hits
                rows -= seat.num_rows
                ahead.add(self._num_wanted(seat), self._futures([seat])[0], seat.num_rows)
                continue
            if cooler:
                looks_for_warmer, cooler = False, []  # no room for it, and looking at more of them takes time
                continue
            passed.append(seat)
            skipped[seat.account] = skipped.get(seat.account, 0) + 1
            if not self._rule.may_pass or seat.num_passed >= policy.MAX_PASSED or len(passed) > policy.LOOK_AHEAD:
                break
        # Nothing but someone's leaving or coming changes the answer much: there is no need to ask again every step.
        self._stuck_at, self._patience = self._num_moves, RETRY_STEPS

    def favoured(self) -> Iterator[tuple[Seat, list[int], list[Seat]]]:
        """Whose tenant is under its share and has had no token: before the step's tokens are shared out.

        With the blocks of its beginning, and those of tenants over their share who make way for it. They do not come
        back in the same step: two tenants could take turns without end, since nobody has blocks of its own yet.
        """
        line, gone = self._line, set[Seat]()
        taken: Room | None = None
        while line.num_waiting and self._rule.by_tenant and len(active := self._accounts.active) > 1:
            seat = line.next({})
            if seat is None or seat.num_output or seat in gone:
                return
            wanted = Room(seat.num_rows, self._num_wanted(seat))
            if not sharing.is_under_share(seat.account, wanted, active, self._whole):
                return
            taken = taken or self._taken(line.running)
            hits = self._holdings.match(seat)
            missing = self._missing(wanted, hits, taken)
            leaving: list[Seat] = []
            if missing.rows > 0 or missing.blocks > 0:
                leaving = sharing.who_makes_way(missing, line.running, active, self._whole, self._holdings)
                if not leaving:
                    return
            gone.update([each.company[0] if each.company else each for each in leaving])
            yield seat, hits, leaving
            taken = None if leaving else Room(taken.rows + seat.num_rows, taken.blocks + self._num_wanted(seat))

    def _warmest(self, first: Seat, number: int, cached: dict[int, int]) -> tuple[Seat, list[Seat]]:
        """Who of the queue of `first`, which stands there at `number`, goes first, and whom it passes."""
        queue = self._line.queue_of(first.account)[number : number + warm.WINDOW]
        if not cached and self._holdings.are_strangers(queue):
            return first, []
        for seat in queue:
            if seat.id not in cached:
                cached[seat.id] = self._holdings.num_likely(seat)
        counts = [cached[seat.id] for seat in queue]
        if max(counts) <= counts[0]:
            return first, []
        best = warm.warmest(map(_standing, queue, counts))
        return queue[best], queue[:best]

    @property
    def _num_moves(self) -> int:
        return self._line.num_moves + (self._before.num_moves if self._before is not None else 0)

    def _present(self) -> list[Seat]:
        """Everyone who runs and does not make way."""
        return self._line.running if self._before is None else [*self._before.running, *self._line.running]

    def _num_behind(self, hits: list[int]) -> int:
        """Blocks besides `hits` that would be idle if everyone made way who has to."""
        return self._holdings.num_only_of(self._behind.running, hits) if self._behind is not None else 0

    def _taken(self, seats: list[Seat]) -> Room:
        """Rows that `seats` fill, and blocks that they will take for what they owe now."""
        return Room(sum([seat.num_rows for seat in seats]), self._num_promised(seats))

    def _missing(self, wanted: Room, hits: list[int], taken: Room) -> Room:
        rows = self._limits.max_num_seqs - taken.rows
        blocks = self._holdings.num_idle_without(hits) + self._num_behind(hits) - taken.blocks - self._watermark
        return Room(wanted.rows - rows, wanted.blocks - len(hits) - blocks)

    def _num_promised(self, seats: list[Seat]) -> int:
        """Blocks that `seats` will take for what they owe now."""
        size = self._limits.block_size  # a steady sequence owes one token: it wants a block if it is at the end of one
        return sum([self._num_wanted(seat) for seat in seats if not (seat.steady and seat.num_computed % size)])

    def _num_wanted(self, seat: Seat) -> int:
        """Blocks that `seat` will take for what it owes now, and for its samples to part."""
        return self._holdings.num_missing(seat, len(seat.tokens)) + (seat.num_rows - 1) * self._num_parting(seat)

    def _num_parting(self, seat: Seat) -> int:
        """Blocks that each sequence beside the first takes to go its own way: a copy, or what beams had drawn."""
        return 1 + (seat.num_output // self._limits.block_size if seat.company else 0)

    def _fits(self, seat: Seat, hits: list[int], ahead: Ahead) -> bool:
        """True if there is room for what everyone owes now, and for the peak of what they are expected to draw."""
        if not ahead:
            return True
        wanted = self._num_wanted(seat) - len(hits) + ahead.num_promised + self._watermark
        room = self._holdings.num_idle_without(hits) - wanted
        if room < 0 and self._behind is None:
            return False
        growth = ahead.growth(self._futures([seat])[0], seat.num_rows, room)
        return growth <= room or growth <= room + self._num_behind(hits)

    def _ahead(self, present: list[Seat]) -> Ahead:
        seats = present.copy()  # who is admitted meanwhile is added
        num_left = sum([seat.last_len - len(seat.tokens) for seat in seats])
        size = self._limits.block_size
        promised = self._num_promised(seats)
        return Ahead(len(seats), promised, num_left, lambda: self._futures(seats), self.lengths, size, self._guess)

    def _futures(self, seats: list[Seat]) -> list[Future]:
        size, futures = self._limits.block_size, []
        for seat in seats:
            num_tokens = len(seat.tokens)
            num_drawn = num_tokens - len(seat.request.prompt) if seat.ends_by_itself else -1
            num_held = len(seat.blocks) or -(-num_tokens // size)
            futures.append((seat.last_len - num_tokens, num_held, num_drawn))
        return futures

    def _may_pass(self, seat: Seat, passed: list[Seat]) -> bool:
        """True if the service of the tenant of `seat`, with all that it can still be charged with, stays within the
        published bound of those of other tenants whom it would pass."""
        account = seat.account
        behind = [other.account.service for other in passed if other.account is not account]
        if not behind:
            return True
        limits = self._limits
        weights = [each.weight for each in self._accounts.active]
        bound = policy.service_bound(limits.max_num_seqs, limits.max_model_len, min(weights))
        mine = [other for other in self._line.running if other.account is account]
        pledged = sum([other.worst_charge for other in mine]) + seat.worst_charge
        return account.service + pledged / account.weight <= min(behind) + bound


def _standing(seat: Seat, num_cached: int) -> warm.Standing:
    num_missing, request = len(seat.tokens) - num_cached, seat.request
    num_patient = num_missing - seat.num_warmer_tokens
    # Whoever has begun, or was told when its first token comes, keeps its turn.
    if seat.num_reached or seat.started or request.deadline_s is not None or seat.num_warmer >= warm.MAX_WARMER:
        num_patient = 0
    return warm.Standing(num_cached, num_missing, num_patient, request.priority)
