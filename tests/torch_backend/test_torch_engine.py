"""The whole engine over torch on the CPU, token for token the CPU's: in float32 for three families and the bundled
model, with everything that a request may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quire.engine.build import Built, build_engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.settings import EngineSettings
from tests.engine.test_exactness import Answers, make_requests, serve
from tests.models.tiny import make_tiny

pytest.importorskip("torch")
pytest.importorskip("transformers")

FAMILIES = ("llama", "qwen2", "qwen3")


def build(folder: Path, device: str, **options: Any) -> Built:
    settings = EngineSettings(**{"device": device, "dtype": "float32", "threads": 1, "max_num_seqs": 16, **options})
    return build_engine(plan(settings, probe(), read_model_spec(folder)), folder)


def answers(built: Built, folder: Path, num_requests: int = 20, spread: int = 2) -> Answers:
    """Requests of every kind, arriving every few steps."""
    limit = read_model_spec(folder).context_length
    asked = [each for each in make_requests(read_model_spec(folder).vocab_size) if len(each.prompt) + 24 < limit]
    return serve(built.engine, [(spread * number, each) for number, each in enumerate(asked[:num_requests])])


def same(got: Answers, expected: Answers) -> None:
    assert set(got) == set(expected)
    for key, told in expected.items():
        assert got[key].tokens == told.tokens, key
        assert got[key].finish == told.finish
        for name in ("logprobs", "prompt_logprobs"):
            ours, theirs = getattr(got[key], name), getattr(told, name)
            assert [each.token for each in ours] == [each.token for each in theirs]
            assert [each.logprob for each in ours] == pytest.approx([each.logprob for each in theirs], abs=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_answers_as_on_the_cpu(tmp_path: Path, family: str) -> None:
    folder = make_tiny(tmp_path, family, max_position_embeddings=1024)
    same(answers(build(folder, "torch:cpu"), folder), answers(build(folder, "cpu"), folder))


@pytest.mark.parametrize("options", [{}, {"batch_invariant": True}, {"max_num_batched_tokens": 64}], ids=str)
def test_the_bundled_model_answers_as_on_the_cpu(options: dict[str, Any]) -> None:
    expected = answers(build(BUNDLED, "cpu"), BUNDLED, 10)
    same(answers(build(BUNDLED, "torch:cpu", **options), BUNDLED, 10), expected)
