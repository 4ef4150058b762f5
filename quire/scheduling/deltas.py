"""Knows: how one sequence's share of a step result becomes news. Does not know: blocks, or who stands in the line."""

from __future__ import annotations

from quire.errors import InternalError
from quire.request import Finish
from quire.scheduling.repetition import is_repeating
from quire.scheduling.seat import Seat
from quire.step import Delta, TokenLogprob, Work, WorkResult


def prompt_logprobs(seat: Seat, work: Work, outcome: WorkResult) -> tuple[TokenLogprob, ...]:
    """What `outcome` tells of the prompt for the first time; rows computed again tell nothing new."""
    if work.prompt_logprobs is None:
        return ()
    if len(outcome.prompt_logprobs) != len(work.successors):
        raise InternalError(
            "a work has prompt logprobs missing", got=len(outcome.prompt_logprobs), allowed=len(work.successors)
        )
    news = outcome.prompt_logprobs[max(0, seat.num_told - work.start) :]
    seat.num_told = max(seat.num_told, work.start + len(work.successors))
    return news


def drawn(seat: Seat, outcome: WorkResult, number: int, told: tuple[TokenLogprob, ...]) -> Delta:
    """Append draw `number` of `outcome` to `seat`, and say so; forced tokens follow it as far as there is room."""
    seat.tokens.append(outcome.tokens[number])
    if not outcome.forced:
        return spoken(seat, outcome, number, told)
    forced = outcome.forced[: seat.last_len - len(seat.tokens)]
    seat.tokens += forced
    finish = seat.finish_after(seat.tokens[-1])
    return Delta(seat.request.id, seat.index, (*outcome.tokens, *forced), (), told, seat.num_cached, finish)


def spoken(seat: Seat, outcome: WorkResult, number: int = 0, told: tuple[TokenLogprob, ...] = ()) -> Delta:
    """Draw `number` of `outcome`, which `seat` holds already, and the end if it is one."""
    token = outcome.tokens[number]
    finish = seat.finish_after(token) or _repetition(seat)
    return Delta(
        seat.request.id,
        seat.index,
        (token,),
        outcome.logprobs[number : number + 1],
        told,
        seat.num_cached,
        finish,
        token if finish is Finish.STOP else None,
    )


def _repetition(seat: Seat) -> Finish | None:
    """The end of an answer that only repeats itself, where that was asked for."""
    params = seat.request.params
    if params.repetition is None or seat.num_output < params.min_tokens:
        return None
    return Finish.REPETITION if is_repeating(seat.tokens, seat.num_prompt, params.repetition) else None


def told_only(seat: Seat, told: tuple[TokenLogprob, ...]) -> Delta:
    """News of a prompt chunk that draws nothing yet."""
    return Delta(seat.request.id, seat.index, prompt_logprobs=told, num_cached=seat.num_cached)


def last_words(seat: Seat, index: int, finish: Finish, error: str | None = None) -> Delta:
    """The end of sample `index` without another token."""
    return Delta(seat.request.id, index, num_cached=seat.num_cached, finish=finish, error=error)
