"""Constrained answers on the real model: the same bits alone and in company, whatever happens in between."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import quire
from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.engine.grammars import compile_with
from quire.form import StructuredOutputsParams
from quire.hardware import probe
from quire.model_spec import read_model_spec
from quire.plan import kv_block_bytes, plan
from quire.request import Constraint, Finish, Request, SamplingParams
from quire.settings import EngineSettings
from quire.structured.source import grammar_of
from quire.text.tokenizer import Tokenizer

BUNDLED = Path(quire.__file__).parent / "bundled"
SPEC = read_model_spec(BUNDLED)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "sizes": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["name", "sizes"],
}
FORMS = (
    StructuredOutputsParams(json=SCHEMA),
    StructuredOutputsParams(regex="[A-Z][a-z]{3,40}( [0-9]{2}){2,5}"),
    StructuredOutputsParams(choice=["the first of them", "the second of them", "none"]),
    StructuredOutputsParams(json_object=True),
)
Answers = dict[tuple[str, int], tuple[tuple[int, ...], Finish | None]]


def make_engine(num_blocks: int = 400, **options: object) -> Engine:
    kv_bytes = num_blocks * kv_block_bytes(16, SPEC, "bfloat16")
    settings = EngineSettings(max_model_len=1024, kv_cache_memory_bytes=kv_bytes, **options)  # type: ignore[arg-type]
    return build_engine(plan(settings, probe(), SPEC), BUNDLED).engine


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    rng = random.Random(3)
    made = []
    for number in range(20):
        form = FORMS[number % 5] if number % 5 < len(FORMS) else None
        prompt = tuple(rng.randrange(3, SPEC.vocab_size) for _ in range(rng.choice([3, 20, 70])))
        params = SamplingParams(
            n=2 if number % 7 == 0 else 1,
            temperature=[0.0, 1.0, 1.7][number % 3],
            top_p=0.95 if number % 4 == 0 else 1.0,
            presence_penalty=0.5 if number % 6 == 0 else 0.0,
            seed=number,
            max_tokens=60,
            logprobs=2 if number % 8 == 0 else None,
        )
        constraint = None if form is None else Constraint(grammar_of(form))
        made.append(Request(str(number), prompt, params, SPEC.eos_ids, constraint=constraint))
    return made


def serve(engine: Engine, requests: list[Request], every: int = 1) -> Answers:
    """A new request every so many steps; aborts one on the way."""
    for request in requests:
        if request.constraint is not None:
            assert engine.grammars is not None
            compile_with(engine.grammars, request.constraint)
    tokens: dict[tuple[str, int], list[int]] = {}
    ends: dict[tuple[str, int], Finish | None] = {}
    waiting, number = list(requests), 0
    while waiting or engine.has_work:
        if waiting and number % every == 0:
            engine.add(waiting.pop(0), float(number))
        for delta in engine.advance(float(number)) or ():
            assert delta.error is None
            tokens.setdefault((delta.request_id, delta.index), []).extend(delta.tokens)
            ends[delta.request_id, delta.index] = delta.finish
        number += 1
    return {key: (tuple(found), ends[key]) for key, found in tokens.items()}


@pytest.fixture(scope="module")
def alone(requests: list[Request]) -> Answers:
    engine = make_engine(prefix_cache=False, threads=1)
    answers: Answers = {}
    for request in requests:
        answers |= serve(engine, [request])
    return answers


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_seqs": 32, "threads": 2},
        {"max_num_seqs": 3, "threads": 1},
        {"num_blocks": 64, "max_num_seqs": 16, "max_num_batched_tokens": 40},  # put back and computed again
    ],
)
def test_company_changes_no_bit(requests: list[Request], alone: Answers, options: dict[str, int]) -> None:
    assert serve(make_engine(**options), requests, every=2) == alone


def test_what_ended_by_itself_has_its_form(requests: list[Request], alone: Answers) -> None:
    tokenizer = Tokenizer.from_folder(BUNDLED)
    num_checked = 0
    for request in requests:
        for index in range(request.params.n):
            tokens, finish = alone[request.id, index]
            if request.constraint is None or finish is not Finish.STOP:
                continue
            text = tokenizer.decode(tokens[:-1])
            if "json_schema" in request.constraint.grammar:
                json.loads(text)
            num_checked += 1
    assert num_checked > 5


def test_a_grammar_that_fails_ends_its_request_alone() -> None:
    engine = make_engine()
    good = Request("good", (5, 6), SamplingParams(seed=1, max_tokens=5), SPEC.eos_ids)
    bad = Request("bad", (5, 6), SamplingParams(seed=1, max_tokens=5), SPEC.eos_ids, constraint=Constraint("start: x"))
    engine.add(good, 0.0)
    engine.add(bad, 0.0)
    ends = {}
    while engine.has_work:
        for delta in engine.advance(0.0) or ():
            if delta.finish is not None:
                ends[delta.request_id] = (delta.finish, delta.error)
    assert ends["good"][0] in (Finish.LENGTH, Finish.STOP)
    assert ends["bad"][0] is Finish.ERROR
    assert "unknown name" in str(ends["bad"][1])


FORCED = "the quick brown fox jumps over the lazy dog and sleeps"


def run_forced(**params: object) -> tuple[tuple[int, ...], Finish | None, int]:
    """Tokens and end of one answer that has little choice, and the steps that it took."""
    engine = make_engine()
    grammar = grammar_of(StructuredOutputsParams(regex=FORCED + "( well| badly)"))
    asked = SamplingParams(seed=1, **{"max_tokens": 80, **params})  # type: ignore[arg-type]
    engine.add(Request("one", (5, 6, 7), asked, SPEC.eos_ids, constraint=Constraint(grammar)), 0.0)
    tokens: list[int] = []
    finish, num_steps = None, 0
    while engine.has_work:
        for delta in engine.advance(0.0) or ():
            assert delta.error is None
            tokens += delta.tokens
            finish = delta.finish
        num_steps += 1
    engine.scheduler.check()
    return tuple(tokens), finish, num_steps


def test_forced_tokens_come_without_being_drawn() -> None:
    """They are those of the tokenizer, and a step brings them all."""
    tokenizer = Tokenizer.from_folder(BUNDLED)
    tokens, finish, num_steps = run_forced()
    assert finish is Finish.STOP
    assert num_steps < len(tokens) / 2
    text = tokenizer.decode(tokens[:-1])
    assert text in (FORCED + " well", FORCED + " badly")
    certain = tokenizer.encode(FORCED, add_special_tokens=False)[
        :-2
    ]  # the end may stand in one token with what follows
    assert list(tokens[: len(certain)]) == certain
    drawn, finish, num_steps = run_forced(logprobs=0)  # what the model thought of each is asked for
    assert finish is Finish.STOP
    assert num_steps == len(drawn)
    assert FORCED in tokenizer.decode(drawn[:-1])


def test_forced_tokens_end_at_max_tokens() -> None:
    whole, _, _ = run_forced()
    tokens, finish, _ = run_forced(max_tokens=5)
    assert (tokens, finish) == (whole[:5], Finish.LENGTH)
