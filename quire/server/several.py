"""More candidates than answers: `best_of` and beam search, as they are asked for, and the best of what was sampled.

    best_of=3, n=1    sample 0  -0.9 a token        all are read to their end; the likeliest by token are told
                      sample 1  -0.4 a token   ->   choice 0
                      sample 2  -1.3 a token

Knows: the fields, and pieces of whole answers. Does not know: how beams are chosen (`scheduling/beams.py`), HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

from quire.beams import Beams
from quire.errors import RequestError, UnsupportedField
from quire.request import SamplingParams
from quire.server import fields
from quire.server.generation import Piece
from quire.server.schema import CompletionBody, GenerationBody
from quire.server.terms import DEADLINE_HEADER

Pieces = AsyncGenerator[list[Piece], None]


def width_of(body: GenerationBody) -> int:
    """How many candidates there are for the `n` answers. Raises `RequestError`."""
    best_of = body.best_of if isinstance(body, CompletionBody) else None
    if best_of is None:
        return body.n
    if best_of < body.n:
        raise RequestError("best_of is less than n", got=best_of, allowed=f"{body.n} or more", param="best_of")
    if best_of > body.n:
        _check_whole(body, "best_of")
    return best_of


def beams_of(body: GenerationBody, deadline_s: float | None) -> Beams | None:
    """The search that `body` asks for, if it does. Raises `RequestError`."""
    early: bool | Literal["never"] = body.early_stopping
    if not body.use_beam_search:
        if body.length_penalty != 1.0:
            fields.check_depends(False, "length_penalty", "use_beam_search=true")
        if early is not False:
            fields.check_depends(False, "early_stopping", "use_beam_search=true")
        return None
    _check_whole(body, "use_beam_search")
    if deadline_s is not None:
        raise UnsupportedField(
            "a beam search has no first token to promise: all of its tokens come at its end", param=DEADLINE_HEADER
        )
    return Beams(width_of(body), body.length_penalty, early)


def sampled(params: SamplingParams, width: int) -> SamplingParams:
    """`width` samples instead of n; of candidates it must be known how likely they are."""
    if width == params.n:
        return params
    return replace(params, n=width, logprobs=params.logprobs or 0)


async def best(pieces: Pieces, first_choice: int, n: int) -> Pieces:
    """Of all candidates, numbered from `first_choice`, the `n` of the highest log probability per token, best first."""
    told: dict[int, list[Piece]] = {}
    async with aclosing(pieces):
        async for each in pieces:
            for piece in each:
                told.setdefault(piece.choice, []).append(piece)
    order = sorted(told, key=lambda choice: (-_mean_logprob(told[choice]), choice))
    for number, choice in enumerate(order[:n]):
        yield [replace(piece, choice=first_choice + number) for piece in told[choice]]


def _mean_logprob(pieces: list[Piece]) -> float:
    own = [token for piece in pieces if piece.ids for token in piece.tokens]  # an echoed prompt has pieces without ids
    logprobs = [token.logprob.logprob for token in own if token.logprob is not None]
    return sum(logprobs) / max(1, len(logprobs))


def _check_whole(body: GenerationBody, name: str) -> None:
    if body.stream:
        raise UnsupportedField(
            f"{name} cannot be streamed: which answers are best is known at their end",
            got=True,
            allowed="false",
            hint=f"Leave out stream or {name}.",
            param="stream",
        )
