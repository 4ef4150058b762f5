"""A whole model by Triton's kernels, under the interpreter, token for token the CPU's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
pytest.importorskip("transformers")

from quire.engine.build import Built, build_engine  # noqa: E402
from quire.hardware import probe  # noqa: E402
from quire.model_spec import read_model_spec  # noqa: E402
from quire.plan import plan  # noqa: E402
from quire.request import Request, SamplingParams  # noqa: E402
from quire.settings import EngineSettings  # noqa: E402
from tests.engine.test_exactness import Answers, serve  # noqa: E402
from tests.models.tiny import make_tiny  # noqa: E402

pytestmark = pytest.mark.triton
LENGTHS = (1, 17, 20)


def build(folder: Path, device: str, **options: object) -> Built:
    fixed = {"device": device, "dtype": "float32", "threads": 1, "max_num_seqs": 4, "max_model_len": 96}
    settings = EngineSettings(**{**fixed, **options})
    return build_engine(plan(settings, probe(), read_model_spec(folder)), folder)


def answers(built: Built, vocab_size: int, wanted: tuple[int, ...] = (0, 1, 2)) -> Answers:
    """A greedy answer, a drawn one and a penalised one, which arrive one after the other."""
    params = (
        SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, logprobs=2, seed=1),
        SamplingParams(temperature=0.9, top_p=0.9, top_k=40, seed=3, max_tokens=3, ignore_eos=True),
        SamplingParams(temperature=0.7, repetition_penalty=1.3, seed=4, max_tokens=2, ignore_eos=True),
    )
    rng = np.random.default_rng(2)
    prompts = [tuple(rng.integers(3, vocab_size, length).tolist()) for length in LENGTHS]
    arrivals = [(n, Request(f"r{n}", prompts[n], params[n])) for n in wanted]
    return serve(built.engine, arrivals)


def same(got: Answers, expected: Answers) -> None:
    assert set(got) <= set(expected)
    for key, told in got.items():
        assert told.tokens == expected[key].tokens, key
        ours, theirs = told.logprobs, expected[key].logprobs
        assert [each.logprob for each in ours] == pytest.approx([each.logprob for each in theirs], abs=2e-3)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_tiny_model_answers_as_on_the_cpu(tmp_path: Path, family: str) -> None:
    folder = make_tiny(tmp_path, family, num_hidden_layers=2, max_position_embeddings=256)
    vocab_size = read_model_spec(folder).vocab_size
    wanted = (0, 1, 2) if family == "llama" else (1,)
    same(answers(build(folder, "triton:cpu"), vocab_size, wanted), answers(build(folder, "cpu"), vocab_size))


def test_in_the_invariant_mode_an_answer_alone_is_the_answer_in_company(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "llama", num_hidden_layers=1, max_position_embeddings=256)
    vocab_size = read_model_spec(folder).vocab_size
    together = answers(build(folder, "triton:cpu", batch_invariant=True, dtype="bfloat16"), vocab_size, (0, 1))
    alone = answers(build(folder, "triton:cpu", batch_invariant=True, dtype="bfloat16"), vocab_size, (0,))
    for key, told in alone.items():
        assert told.tokens == together[key].tokens
        assert [each.logprob for each in told.logprobs] == [each.logprob for each in together[key].logprobs]
