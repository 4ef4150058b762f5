"""Knows: one line of sequences in order of arrival, whose front is running. Does not know: blocks, tokens or steps.

    oldest                                                                  youngest
    |---------- running ----------|------------------ waiting ------------------|
               put back one by one  <-|->  admitted one by one

Nobody overtakes: whoever runs is older than whoever waits. So the oldest runs, is never put back, and finishes.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from quire.errors import InternalError
from quire.scheduling.seat import Seat


class Line:
    """Joining, admitting and putting back are O(1); leaving is O(running)."""

    def __init__(self) -> None:
        self.running: list[Seat] = []
        self.waiting: OrderedDict[int, Seat] = OrderedDict()

    def join(self, seat: Seat) -> None:
        """Stand at the end."""
        self.waiting[seat.id] = seat

    def head(self) -> Seat | None:
        """Who is admitted next."""
        return next(iter(self.waiting.values()), None)

    def admit(self) -> Seat:
        """The head begins to run."""
        _, seat = self.waiting.popitem(last=False)
        self.running.append(seat)
        return seat

    def put_back(self) -> Seat:
        """The youngest that runs waits again, before everyone else who waits."""
        seat = self.running.pop()
        self.waiting[seat.id] = seat
        self.waiting.move_to_end(seat.id, last=False)
        return seat

    def follow(self, seat: Seat, siblings: list[Seat]) -> None:
        """`siblings` begin to run right behind `seat`."""
        place = self.running.index(seat) + 1
        self.running[place:place] = siblings

    def leave(self, seat: Seat) -> None:
        """Out of the line, wherever it stands."""
        if seat.id in self.waiting:
            del self.waiting[seat.id]
        else:
            self.running.remove(seat)

    def check(self) -> None:
        """Raise `InternalError` if anyone has overtaken anyone, or a waiting one holds blocks."""
        line = [*self.running, *self.waiting.values()]
        for older, younger in pairwise(line):
            if older.place >= younger.place:
                raise InternalError("the line is out of order", got=(older.place, younger.place))
        for seat in self.waiting.values():
            if seat.blocks or seat.num_computed:
                raise InternalError("a waiting sequence holds blocks", got=seat.id)
