"""Knows: the sequences with which a request comes in, at first or where it was before. Does not know: who else is here.

n = 3, sample 1 has ended, an engine was lost:   told   0  |prompt|a b c|      in the line   0  |prompt a b c|  owed
                                                        2  |prompt|x y|                      2  |prompt x y|    whole

A sequence that goes on owes all of its tokens and draws the next one after them, exactly as one that was put back
does: nothing of what was told is told again, and nothing of what follows depends on the loss.
"""

from __future__ import annotations

from collections.abc import Callable

from quire.request import Request, Resumed
from quire.scheduling.seat import Seat


def seats_of(request: Request, new_id: Callable[[], int]) -> list[Seat]:
    """One seat for all samples that have no token yet, and one for each of the others; place and turn are to be set."""
    resumed = request.resumed
    if resumed is None:
        num_samples = 1 if request.beams is not None else request.params.n
        return [Seat(new_id(), request, tokens=list(request.prompt), indices=tuple(range(num_samples)))]
    if request.beams is not None:
        seats = [Seat(new_id(), request, tokens=list(request.prompt))]
    else:
        seats = _going_on(request, resumed, new_id)
    seats[0].num_told = resumed.num_prompt_told
    for seat in seats[1:]:
        seat.num_told = seat.num_prompt - 1  # the first one tells what is left to tell of the prompt
    for seat in seats if resumed.num_cached is not None else ():
        seat.started, seat.num_cached = True, resumed.num_cached or 0
    return seats


def _going_on(request: Request, resumed: Resumed, new_id: Callable[[], int]) -> list[Seat]:
    fresh = tuple([index for index, tokens in resumed.samples if not tokens])
    seats = [Seat(new_id(), request, fresh[0], list(request.prompt), indices=fresh)] if fresh else []
    for index, tokens in resumed.samples:
        if tokens:
            seats.append(Seat(new_id(), request, index, [*request.prompt, *tokens], indices=(index,)))
    return seats
