"""Knows: who runs and who waits, and in which order. Does not know: blocks, tokens or steps.

    running    |-- least place: grows first, is put back last --------------------------------------|
    waiting    |-- a tenant's queue: least turn first --|-- another's --|      next: the tenant with least service,
                                                                               of two alike the one with fewer here

A place and a turn never change, so whoever has the least place of those who run stays there, and finishes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf
from operator import attrgetter

from quire.errors import InternalError
from quire.scheduling.accounts import Account, Accounts
from quire.scheduling.policy import Place
from quire.scheduling.seat import Seat

PLACE = attrgetter("place")
TURN = attrgetter("turn")


class Line:
    """Joining, admitting, putting back and leaving are O(log n), but for moving a list's tail.

    `num_queues_begun` counts how often a queue began beside none, beside one, and beside more.
    """

    def __init__(self, accounts: Accounts) -> None:
        self.running: list[Seat] = []
        self.num_queues_begun = [0, 0, 0]
        self.num_waiting = self.num_waiting_tokens = self.num_moves = 0
        self._accounts = accounts
        self._queues: dict[Account, list[Seat]] = {}

    @property
    def num_queues(self) -> int:
        """Tenants of whom someone waits."""
        return len(self._queues)

    def waiting(self) -> Iterator[Seat]:
        """Everyone who waits, queue by queue."""
        for queue in self._queues.values():
            yield from queue

    def queue_of(self, account: Account) -> list[Seat]:
        """Those of `account` who wait, least turn first; for observers, who change nothing."""
        return self._queues.get(account, [])

    def num_before(self, account: Account, turn: Place) -> int:
        """How many of `account` would go before one with `turn`."""
        return bisect_left(self.queue_of(account), turn, key=TURN)

    def join(self, seat: Seat) -> None:
        """Wait in the queue of its tenant."""
        queue = self._queues.get(seat.account)
        if queue is None:
            self._accounts.begin_to_wait(seat.account, list(self._queues))
            self.num_queues_begun[min(2, len(self._queues))] += 1
            queue = self._queues[seat.account] = []
        insort(queue, seat, key=TURN)
        seat.waits = True
        self.num_moves += 1
        self.num_waiting += 1
        self.num_waiting_tokens += len(seat.request.prompt)

    def next(self, skipped: Mapping[Account, int]) -> Seat | None:
        """Who is to be admitted next, if the first `skipped` of each queue are passed over."""
        found: Seat | None = None
        least = inf
        for account, queue in self._queues.items():
            number = skipped.get(account, 0)
            if number >= len(queue):
                continue
            seat, service = queue[number], account.service
            if found is None or service < least or (service == least and _standing(seat) < _standing(found)):
                found, least = seat, service
        return found

    def admit(self, seat: Seat) -> None:
        """`seat`, which waits, begins to run."""
        self._stop_waiting(seat)
        self._begin(seat)

    def put_back(self, seat: Seat) -> None:
        """`seat`, which runs, waits again."""
        self._cease(seat)
        self.join(seat)

    def follow(self, siblings: list[Seat]) -> None:
        """`siblings` of one who runs begin to run."""
        for seat in siblings:
            self._begin(seat)

    def leave(self, seat: Seat) -> None:
        """Out of the line, wherever it stands."""
        if seat.waits:
            self._stop_waiting(seat)
        else:
            self._cease(seat)
            self.num_moves += 1

    def check(self) -> None:
        """Raise `InternalError` if a list is out of order or miscounted, or a waiting sequence holds blocks."""
        for name, seats, key in [("running", self.running, PLACE), *(("a", q, TURN) for q in self._queues.values())]:
            for older, younger in pairwise(seats):
                if key(older) >= key(younger):
                    raise InternalError(f"{name} queue is out of order", got=(key(older), key(younger)))
        if self.num_waiting != sum(map(len, self._queues.values())) or not all(self._queues.values()):
            raise InternalError("those who wait are miscounted", got=self.num_waiting)
        rows = Counter({account: account.num_rows for account in self._accounts.active})
        for seat in self.running:
            rows[seat.account] -= seat.num_rows
        if any(rows.values()):
            raise InternalError("the rows of a tenant are miscounted", got=max(map(abs, rows.values())), allowed=0)
        for seat in self.waiting():
            if seat.blocks or seat.num_computed or not seat.waits:
                raise InternalError("a waiting sequence holds blocks", got=seat.id)

    def _begin(self, seat: Seat) -> None:
        insort(self.running, seat, key=PLACE)
        seat.runs = True
        seat.account.num_rows += seat.num_rows

    def _cease(self, seat: Seat) -> None:
        self.running.remove(seat)
        seat.runs = False
        seat.account.num_rows -= seat.num_rows

    def _stop_waiting(self, seat: Seat) -> None:
        queue = self._queues[seat.account]
        del queue[bisect_left(queue, seat.turn, key=TURN)]
        seat.waits = False
        self.num_moves += 1
        self.num_waiting -= 1
        self.num_waiting_tokens -= len(seat.request.prompt)
        if not queue:
            del self._queues[seat.account]
            self._accounts.end_to_wait(seat.account)


def _standing(seat: Seat) -> tuple[int, Place]:
    """Of two tenants that were served alike, who goes before."""
    return (seat.account.num_seats, seat.turn)
