"""Knows: one beam search under way: which seat each beam sits in, its score, and what may follow it.

one search of width 3, B = 4:  beam 0   |a b c d|e f g h|i j . .|    beams share the blocks of their common past,
                               beam 1   |a b c d|e f g h|i j . .|    and the partly filled one until one of them
                               beam 2   |a b c d|e f x y|z u . .|    writes: that one takes a copy

Does not know: when a step is made, or who else is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from quire.beams import Beams
from quire.request import Finish
from quire.scheduling.beams import Best, Candidate, Ended, num_wanted, places, ranked
from quire.scheduling.holdings import Holdings
from quire.scheduling.seat import Seat
from quire.step import Delta, TokenLogprob

TOO_FEW = "there are fewer sequences than were asked for"


@dataclass(slots=True)
class Beam:
    """A running sequence. `following` holds the likeliest tokens after it as soon as they are known."""

    seat: Seat
    score: float = 0.0
    told: list[TokenLogprob] = field(default_factory=list)
    following: TokenLogprob | None = None


class Search:
    """`take` what may follow each beam; when the last one is known, `go_on` moves all of them by a token."""

    def __init__(self, seat: Seat, beams: Beams) -> None:
        self.best = Best(beams, seat.request.max_tokens, seat.end_ids)
        self.beams = [Beam(seat)]
        self.is_over = False
        self._width = beams.width
        seat.num_candidates = num_wanted(beams.width, len(seat.end_ids))
        self._seated()

    @property
    def seats(self) -> list[Seat]:
        """Those of all beams, best first."""
        return [beam.seat for beam in self.beams]

    def take(self, seat: Seat, following: TokenLogprob) -> bool:
        """What may follow the beam in `seat`; True if that of every beam is known now."""
        for beam in self.beams:
            if beam.seat is seat:
                beam.following = following
        return all(beam.following is not None for beam in self.beams)

    def wake(self, holdings: Holdings) -> list[Seat]:
        """The first beam has caught up after all were put back: the others, who hold what they share with it."""
        first, *others = self.seats
        sleepers = [seat for seat in others if seat.asleep]
        for beam in self.beams if sleepers else ():
            beam.following = None  # what was known before they were put back comes again
        for seat in sleepers:
            holdings.branch(first, seat, _num_common(first.tokens, seat.tokens))
            seat.asleep = False
        self._seated()
        return sleepers

    def go_on(self, holdings: Holdings, spawn: Callable[[Seat, int], Seat]) -> list[Seat]:
        """Choose the next beams and seat them, or be over; the seats that nobody needs any more.

        `spawn(seat, index)` makes another seat of the same request, which runs.
        """
        seats, num_tokens = self.seats, self.beams[0].seat.num_output + 1
        running, ended = self._choose(num_tokens)
        for candidate in ended:
            self.best.take(self._end(candidate, num_tokens))
        if not running or self.best.is_over(running[0].score, num_tokens):
            self.is_over = True
            return []
        self._move(running, seats, holdings, spawn)
        return [seat for seat in seats if seat not in self.seats]

    def answers(self) -> list[Delta]:
        """The best sequences, as many as were asked for; the search is over."""
        request, num_cached = self.beams[0].seat.request, self.beams[0].seat.num_cached
        news = [
            Delta(
                *(request.id, index, each.tokens, each.told, (), num_cached, each.finish),
                each.tokens[-1] if each.finish is Finish.STOP else None,
            )
            for index, each in enumerate(self.best.ended[: request.params.n])
        ]
        return news + self.last_words(Finish.ERROR, TOO_FEW, first=len(news))

    def last_words(self, finish: Finish, error: str | None = None, first: int = 0) -> list[Delta]:
        """The end of the samples from `first` on without another token."""
        seat = self.beams[0].seat
        return [
            Delta(seat.request.id, index, num_cached=seat.num_cached, finish=finish, error=error)
            for index in range(first, seat.request.params.n)
        ]

    def _choose(self, num_tokens: int) -> tuple[list[Candidate], list[Candidate]]:
        draw = self.beams[0].seat.draw
        banned = draw.banned_ids if draw is not None else ()
        following = [beam.following for beam in self.beams if beam.following is not None]
        return self.best.split(ranked([beam.score for beam in self.beams], following, banned), num_tokens)

    def _end(self, candidate: Candidate, num_tokens: int) -> Ended:
        parent = self.beams[candidate.parent]
        tokens = (*parent.seat.tokens[parent.seat.num_prompt :], candidate.token)
        finish = Finish.STOP if candidate.token in self.best.end_ids else Finish.LENGTH
        score = self.best.beams.score(candidate.score, num_tokens)
        return Ended(score, tokens, tuple(self._told(parent, candidate)), finish)

    def _told(self, parent: Beam, candidate: Candidate) -> list[TokenLogprob]:
        num_top = parent.seat.request.params.logprobs
        if num_top is None:
            return []
        top = parent.following.top[:num_top] if parent.following is not None else ()
        return [*parent.told, TokenLogprob(candidate.token, candidate.logprob, top)]

    def _move(
        self, running: list[Candidate], seats: list[Seat], holdings: Holdings, spawn: Callable[[Seat, int], Seat]
    ) -> None:
        """Every new beam takes over what its parent holds, in the parent's seat or in another one."""
        free = iter([index for index in range(self._width) if index not in {seat.index for seat in seats}])
        beams: list[Beam] = []
        for candidate, place in zip(running, places([each.parent for each in running], len(seats)), strict=True):
            parent = self.beams[candidate.parent]
            seat = parent.seat
            if place != candidate.parent:
                seat = seats[place] if place < len(seats) else spawn(parent.seat, next(free))
                _follow(parent.seat, seat, holdings)
            beams.append(Beam(seat, candidate.score, self._told(parent, candidate)))
        for beam, candidate in zip(beams, running, strict=True):
            beam.seat.tokens.append(candidate.token)
        self.beams = beams
        self._seated()

    def _seated(self) -> None:
        """The first seat stands for the rows of beams that there are not, or not yet."""
        seats = self.seats
        for seat in seats:
            seat.company = seats
            seat.fill(1)
        seats[0].fill(1 + self._width - len(seats))


def _follow(parent: Seat, seat: Seat, holdings: Holdings) -> None:
    """`seat` leaves its past and takes on that of `parent`, before `parent` gets its next token."""
    holdings.let_go(seat)
    holdings.fork(parent, seat)
    seat.tokens = parent.tokens.copy()
    seat.draw = None  # it would show the old past
    seat.num_shared, seat.num_reached = parent.num_computed, 0


def _num_common(first: list[int], second: list[int]) -> int:
    """Tokens at the beginning that are the same."""
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return number
    return min(len(first), len(second))
