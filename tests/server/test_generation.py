"""Deltas to pieces, without a server: several tokens at once, samples out of order, ends and failures."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import EOS, TOKENIZER, says, served

from quire.errors import EngineDead, GenerationFailed, InternalError
from quire.request import Finish, Request, SamplingParams
from quire.server.generation import Generation, Piece
from quire.step import Delta, TokenLogprob

PROMPT = tuple(TOKENIZER.encode("Once upon a time"))


def made(echo: str | None = None, first_choice: int = 0, **params: object) -> Generation:
    request = Request("r", PROMPT, SamplingParams(seed=1, max_tokens=100, **params))  # type: ignore[arg-type]
    return Generation(request, TOKENIZER, first_choice=first_choice, echo=echo)


def text_of(pieces: list[Piece], choice: int = 0) -> str:
    return "".join(piece.text for piece in pieces if piece.choice == choice)


@given(cuts=st.lists(st.integers(0, 60), max_size=6), logprobs=st.sampled_from([None, 0]))
def test_the_text_does_not_depend_on_how_tokens_are_bundled(cuts: list[int], logprobs: int | None) -> None:
    text = "A naïve 🦊 ran. STOP it never came here."
    ids = tuple(TOKENIZER.encode(text, add_special_tokens=False))
    generation = made(stop="STOP", logprobs=logprobs)
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces: list[Piece] = []
    for start, end in itertools.pairwise(edges):
        logs = tuple(TokenLogprob(token, -1.0) for token in ids[start:end]) if logprobs is not None else ()
        pieces += generation.feed(Delta("r", 0, ids[start:end], logs))
    assert text_of(pieces) == "A naïve 🦊 ran. "
    assert [piece.finish for piece in pieces if piece.finish] == [Finish.STOP]
    until_stop = next(n for n in range(len(ids)) if "STOP" in TOKENIZER.decode(ids[: n + 1])) + 1
    assert generation.num_tokens == until_stop == sum(len(piece.ids) for piece in pieces)
    assert sum(len(piece.tokens) for piece in pieces) == (until_stop if logprobs is not None else 0)
    assert generation.is_done


def test_no_answer_goes_out_before_the_echoed_prompt_is_known() -> None:
    generation = made(echo="Once upon a time", n=2, logprobs=0, prompt_logprobs=0, first_choice=4)
    word = TOKENIZER.encode(" there", add_special_tokens=False)[0]
    known = [TokenLogprob(token, -1.0) for token in PROMPT[1:]]
    begun = generation.feed(Delta("r", 0, prompt_logprobs=tuple(known[:1])))
    assert [(piece.choice, piece.text) for piece in begun] == [(4, "Once upon a time"), (5, "Once upon a time")]
    assert [[token.id for token in piece.tokens] for piece in begun] == [list(PROMPT[:2])] * 2
    assert generation.feed(Delta("r", 1, (word,), (TokenLogprob(word, -2.0),))) == []
    pieces = generation.feed(Delta("r", 0, (word,), (TokenLogprob(word, -2.0),), tuple(known[1:])))
    assert [piece.choice for piece in pieces] == [4, 5, 5, 4]
    for choice in (4, 5):
        told = [token for piece in [*begun, *pieces] if piece.choice == choice for token in piece.tokens]
        assert text_of([*begun, *pieces], choice) == TOKENIZER.decode([*PROMPT, word])
        assert [token.id for token in told] == [*PROMPT, word]
        assert [token.logprob and token.logprob.logprob for token in told] == [None, *[-1.0] * len(known), -2.0]
        assert [token.offset for token in told] == sorted(token.offset for token in told)


def test_nothing_of_a_prompt_is_kept_once_it_is_told() -> None:
    generation = made(echo="Once upon a time", logprobs=0, prompt_logprobs=0)
    for token in PROMPT[1:]:
        (piece,) = generation.feed(Delta("r", 0, prompt_logprobs=(TokenLogprob(token, -1.0),)))
        assert piece.tokens[-1].id == token
        assert not generation._held


def test_a_token_without_its_log_probability_is_an_error_and_not_a_null() -> None:
    generation = made(logprobs=0)
    with pytest.raises(InternalError, match="no log probability"):
        generation.feed(Delta("r", 0, (7, 8), (TokenLogprob(7, -1.0),)))


def test_the_end_token_counts_and_is_not_shown() -> None:
    generation = made(skip_special_tokens=False)
    word = TOKENIZER.encode("fox", add_special_tokens=False)
    pieces = generation.feed(Delta("r", 0, (*word, EOS), finish=Finish.STOP, stop_token=EOS))
    assert text_of(pieces) == "fox"
    assert generation.num_tokens == len(word) + 1


def test_failures_are_typed_and_an_abort_of_what_has_ended_is_none() -> None:
    with pytest.raises(GenerationFailed, match="not finite"):
        made().feed(Delta("r", 0, finish=Finish.ERROR, error="logits are not finite"))
    with pytest.raises(EngineDead):
        made().feed(Delta("r", 0, finish=Finish.ABORT))
    generation = made(n=2, stop="a")
    generation.feed(Delta("r", 0, tuple(TOKENIZER.encode("a", add_special_tokens=False))))
    assert generation.feed(Delta("r", 0, finish=Finish.ABORT)) == []
    assert not generation.is_done


def test_a_sample_that_stopped_costs_nothing_while_its_neighbour_goes_on() -> None:
    stops, goes_on = says("STOP " * 20, end=False), says("word " * 20, end=False)
    with served(lambda draw, index: (stops if index == 0 else goes_on)(draw, index)) as server:
        server.runner.pace_s = 0.002
        answer = server.complete(n=2, stop="STOP", max_tokens=200, temperature=1).json()
        metrics = server.get("/metrics").body.decode()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]
    drawn = next(line for line in metrics.splitlines() if line.startswith("quire_generation_tokens_total "))
    assert 200 < float(drawn.split()[1]) < 350  # 400 if it went on
