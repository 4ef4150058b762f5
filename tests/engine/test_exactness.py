"""Decision 002, seen from outside: a request's tokens and log probabilities are the same bits alone and in any company.

64 requests of random length arrive at random while others run: greedy and seeded, with n > 1, shared prefixes,
penalties, prompt log probabilities. Each is compared with the same request served alone by another engine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import kv_block_bytes, plan
from quire.request import Finish, Request, SamplingParams
from quire.settings import EngineSettings
from quire.step import TokenLogprob
from tests.models.tiny import make_tiny

NUM_REQUESTS = 64
COMPANY = [
    # max_num_batched_tokens, prefix cache, threads, KV blocks (few of them: requests are put back and recomputed)
    *((budget, cache, threads, 2000) for budget in (64, 2048) for cache in (False, True) for threads in (1, 2)),
    (2048, True, 2, 260),
    (64, False, 1, 260),
]
FORMS = {
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
    "int8": {"quantization": "int8"},
    "int8-kv": {"kv_cache_dtype": "int8"},
    "int4": {"quantization": "int4", "quantization_group_size": 64, "head_quantization": "int4"},
    "int4x2": {"quantization": "int4", "head_quantization": "int4x2"},
}
KV_DTYPES = {"float32": "float32", "int8-kv": "int8"}
# Every company for the plain formats; for the others the smallest pieces, and the fullest pool.
CASES = [
    (form, *company)
    for form in FORMS
    for company in COMPANY
    if form in ("bfloat16", "float32") or company in ((64, False, 2, 2000), (2048, True, 2, 260))
]


@dataclass
class Told:
    """All that the engine said about one sample."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


Answers = dict[tuple[str, int], Told]


@pytest.fixture(scope="module")
def hd64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads of 64, grouped queries, and a vocabulary that fills no panel."""
    return make_tiny(
        tmp_path_factory.mktemp("hd64"),
        "llama",
        hidden_size=128,
        intermediate_size=200,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
    )


@pytest.fixture(scope="module", params=["bundled", "hd64"])
def folder(request: pytest.FixtureRequest) -> Path:
    return BUNDLED if request.param == "bundled" else request.getfixturevalue("hd64")


@pytest.fixture(scope="module")
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def requests(folder: Path) -> list[Request]:
    return make_requests(read_model_spec(folder).vocab_size)


@pytest.fixture(scope="module")
def alone(folder: Path, form: str, requests: list[Request]) -> Answers:
    """Every request by itself, with nothing remembered from the one before."""
    engine = make_engine(folder, form, max_num_batched_tokens=4096, prefix_cache=False, threads=1)
    answers: Answers = {}
    for request in requests:
        answers |= serve(engine, [(0, request)])
    return answers


def make_engine(folder: Path, form: str, num_blocks: int = 2000, **options: object) -> Engine:
    spec = read_model_spec(folder)
    kv_bytes = num_blocks * kv_block_bytes(16, spec, KV_DTYPES.get(form, "bfloat16"))
    settings = EngineSettings(**FORMS[form], max_num_seqs=32, kv_cache_memory_bytes=kv_bytes, **options)  # type: ignore[arg-type]
    return build_engine(plan(settings, probe(), spec), folder).engine


def make_requests(vocab_size: int) -> list[Request]:
    """Random prompts of 1 to 3000 tokens (most are short), some beginning alike, every kind of draw."""
    rng = random.Random(7)
    common = [rng.randrange(3, vocab_size) for _ in range(700)]
    requests = []
    for number in range(NUM_REQUESTS):
        num_tokens = rng.choice([1, 2, 15, 16, 17, 40, 90, 200, 333, 600, 1200])
        prompt = [rng.randrange(3, vocab_size) for _ in range(num_tokens)]
        if number % 4 == 0:
            prompt = common[: rng.choice([32, 100, 640, 700])] + prompt
        if number == 13:
            prompt = [rng.randrange(3, vocab_size) for _ in range(3000)]
        params = SamplingParams(
            n=3 if number % 8 == 0 else 1,
            temperature=0.0 if number % 2 else rng.choice([0.7, 1.0, 1.9]),
            top_p=rng.choice([1.0, 0.9]),
            top_k=rng.choice([0, 40]),
            repetition_penalty=rng.choice([1.0, 1.3]),
            frequency_penalty=rng.choice([0.0, 0.5]),
            seed=number,
            max_tokens=rng.randrange(1, 24),
            logprobs=rng.choice([0, 3]),
            prompt_logprobs=1 if number % 9 == 0 and num_tokens < 300 else None,
            ignore_eos=True,
        )
        requests.append(Request(f"r{number}", tuple(prompt), params))
    return requests


def serve(engine: Engine, arrivals: list[tuple[int, Request]]) -> Answers:
    """Let each request arrive after so many steps; everything that was said, by request and sample."""
    answers: Answers = {}
    waiting, num_steps = sorted(arrivals, key=lambda arrival: arrival[0]), 0
    while waiting or engine.has_work:
        while waiting and (waiting[0][0] <= num_steps or not engine.has_work):
            engine.add(waiting.pop(0)[1], float(num_steps))
        report = engine.step(float(num_steps))
        num_steps += 1
        for delta in report.deltas if report else ():
            told = answers.setdefault((delta.request_id, delta.index), Told())
            assert told.finish is None, "news after the end"
            told.tokens += delta.tokens
            told.logprobs += delta.logprobs
            told.prompt_logprobs += delta.prompt_logprobs
            told.finish = delta.finish
    engine.scheduler.check()
    return answers


@pytest.mark.parametrize(("form", "budget", "cache", "threads", "num_blocks"), CASES, indirect=["form"])
def test_company_changes_no_bit(
    folder: Path,
    form: str,
    requests: list[Request],
    alone: Answers,
    budget: int,
    cache: bool,
    threads: int,
    num_blocks: int,
) -> None:
    engine = make_engine(folder, form, num_blocks, max_num_batched_tokens=budget, prefix_cache=cache, threads=threads)
    rng = random.Random(budget * threads + cache)
    together = serve(engine, [(rng.randrange(60), request) for request in requests])
    assert set(together) == set(alone)
    for key, told in alone.items():
        assert together[key] == told, key
    assert engine.scheduler.cache_use().num_used == 0
