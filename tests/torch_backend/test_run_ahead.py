"""Steps begun before they are asked for: the same tokens as on the CPU, whoever comes and goes meanwhile; and how many
guesses were of use."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire.engine.engine import Engine
from quire.llm import BUNDLED
from quire.request import Request, SamplingParams
from tests.engine.test_exactness import serve
from tests.torch_backend.test_torch_engine import build, same

pytest.importorskip("torch")


def plain_requests(num: int, seed: int, **more: Any) -> list[Request]:
    """Greedy and seeded, of many lengths; every fifth asks for something that nobody guesses."""
    rng = random.Random(seed)
    asked = []
    for number in range(num):
        params = SamplingParams(
            temperature=rng.choice([0.0, 0.8]), top_p=rng.choice([1.0, 0.9]), seed=number,
            max_tokens=rng.randrange(1, 60), ignore_eos=rng.random() < 0.8, **more,
        )  # fmt: skip
        if number % 5 == 4:
            params = replace(params, n=2, repetition_penalty=rng.choice([1.0, 1.2]))
        prompt = tuple(rng.randrange(3, 2000) for _ in range(rng.choice([1, 7, 16, 40])))
        asked.append(Request(f"r{number}", prompt, params))
    return asked


def ahead(engine: Engine) -> Any:
    return engine.runner.ahead  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "spread"),
    [
        ({"prefix_cache": True}, 3),
        ({"prefix_cache": False, "max_num_batched_tokens": 32}, 7),
        ({"kv_cache_memory_bytes": 900_000, "max_model_len": 112}, 1),  # few blocks: sequences are put back
    ],
    ids=str,
)
def test_answers_are_those_of_the_cpu(options: dict[str, Any], spread: int) -> None:
    folder, asked = Path(BUNDLED), plain_requests(15, 3)
    arrivals = [(spread * number, each) for number, each in enumerate(asked)]
    over_torch = build(folder, "torch:cpu", **options).engine
    got = serve(over_torch, arrivals)
    same(got, serve(build(folder, "cpu", **options).engine, arrivals))
    assert ahead(over_torch).num_used > 10


def test_a_long_answer_alone_is_guessed_all_the_way() -> None:
    engine = build(Path(BUNDLED), "torch:cpu").engine
    params = SamplingParams(temperature=0.0, seed=0, max_tokens=100, ignore_eos=True)
    serve(engine, [(0, Request("alone", (5, 6, 7), params))])
    runs = ahead(engine)
    assert runs.num_used >= 96, "blocks come a step early, so that no boundary interrupts"
    assert runs.num_begun - runs.num_used <= 1, "only the step after the last one was for nothing"


def test_those_who_end_cost_the_others_nothing() -> None:
    """Eight sequences that end one after the other: what was guessed for the others counts."""
    engine = build(Path(BUNDLED), "torch:cpu").engine
    asked = [
        Request(f"r{n}", (5, 6, 7 + n), SamplingParams(temperature=0.0, seed=0, max_tokens=20 + 5 * n, ignore_eos=True))
        for n in range(8)
    ]
    serve(engine, [(0, each) for each in asked])
    runs = ahead(engine)
    assert runs.num_used >= 50
    assert runs.num_lost <= 2


def test_who_asks_for_more_than_a_token_is_not_guessed() -> None:
    engine = build(Path(BUNDLED), "torch:cpu").engine
    serve(engine, [(0, each) for each in plain_requests(3, 1, logprobs=2)])
    assert ahead(engine).num_begun == 0
