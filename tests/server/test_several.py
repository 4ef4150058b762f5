"""best_of and beam search over HTTP: which answers come, in which order, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from served import Served

from quire.request import Finish
from quire.server.generation import Piece, ToldToken
from quire.server.several import best
from quire.step import TokenLogprob

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]


def _piece(choice: int, *logprobs: float, echo: int = 0, finish: Finish | None = None) -> Piece:
    told = [ToldToken(9, 0, None)] * echo + [ToldToken(7, 0, TokenLogprob(7, value)) for value in logprobs]
    return Piece(choice, "x", (7,) * len(logprobs), tuple(told), finish)


async def _each(told: list[Piece]) -> AsyncGenerator[list[Piece], None]:
    for piece in told:
        yield [piece]


def test_the_likeliest_by_token_are_told_and_renumbered() -> None:
    told = [
        _piece(4, -1.0, -1.0, -1.0),
        _piece(5, -0.5, echo=2),
        _piece(6, -0.2),
        _piece(5, -0.3, finish=Finish.STOP),
        _piece(6, -0.9, finish=Finish.LENGTH),
        _piece(4, finish=Finish.LENGTH),
    ]

    async def chosen() -> list[list[Piece]]:
        return [pieces async for pieces in best(_each(told), 4, 2)]

    first, second = asyncio.run(chosen())
    assert [piece.choice for piece in first] == [4, 4]
    assert [piece.tokens[-1].logprob.logprob for piece in first if piece.tokens[-1].logprob] == [-0.5, -0.3]
    assert [piece.choice for piece in second] == [5, 5]
    assert second[-1].finish is Finish.LENGTH


def test_best_of_tells_n_and_counts_all(rambler: Served) -> None:
    body = {"prompt": ["Hi", "Ho"], "max_tokens": 4, "temperature": 1, "seed": 3, "n": 2, "best_of": 5}
    answer = rambler.post(COMPLETIONS, {**body, "ignore_eos": True}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in answer["choices"])
    assert answer["usage"]["completion_tokens"] == 2 * 5 * 4


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("tier", ["default", "flex"])
def test_a_search_answers_best_first(rambler: Served, path: str, tier: str) -> None:
    said = {"messages": HI, "logprobs": True} if path == CHAT else {"prompt": "Hi", "logprobs": 0}
    asked = {"use_beam_search": True, "n": 4, "max_tokens": 6, "length_penalty": 0.0, "ignore_eos": True}
    answer = rambler.post(path, {**said, **asked, "service_tier": tier}).json()
    sums = [sum(_logprobs(choice, path)) for choice in answer["choices"]]
    assert len(sums) == 4
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) > 1
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 4 * 6


def _logprobs(choice: dict[str, Any], path: str) -> list[float]:
    told = choice["logprobs"]
    return [each["logprob"] for each in told["content"]] if path == CHAT else told["token_logprobs"]


def test_a_wider_search_returns_its_best(rambler: Served) -> None:
    asked = {"use_beam_search": True, "max_tokens": 6, "ignore_eos": True}
    wide = rambler.complete(n=4, **asked).json()["choices"]
    (one,) = rambler.complete(n=1, best_of=4, **asked).json()["choices"]
    assert one["text"] == wide[0]["text"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"top_p": 0.9}, "top_p"),
        ({"stop": ["x"]}, "stop"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stream": True}, "stream"),
        ({"length_penalty": 1e9}, "length_penalty"),
        ({"early_stopping": "soon"}, "early_stopping"),
        ({"early_stopping": 1}, "early_stopping"),
        ({"n": 65}, "n"),
    ],
)
def test_what_a_search_cannot_take_is_refused_by_name(rambler: Served, fields: dict[str, Any], param: str) -> None:
    reply = rambler.complete(**{"use_beam_search": True, "n": 2, "max_tokens": 4, **fields})
    assert reply.status == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("fields", [{"length_penalty": 2}, {"early_stopping": True}])
def test_what_means_nothing_without_a_search_is_refused(rambler: Served, fields: dict[str, Any]) -> None:
    assert rambler.complete(max_tokens=1, **fields).status == 400
