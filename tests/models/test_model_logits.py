"""Every config option, held against transformers: logits within 1e-3 in float32, within bfloat16's rounding in bf16."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.ops.device import available_isas
from tests.models.oracle import oracle_logits
from tests.models.stage import Stage
from tests.models.tiny import edit_config, make_tiny

pytest.importorskip("torch")
pytest.importorskip("transformers")

FAMILIES = ("llama", "qwen2", "qwen3")
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {**LLAMA3, "original_max_position_embeddings": 64, "rope_theta": 500.0},
    "llama3-own-maximum": LLAMA3,
    "yarn": YARN,
    "yarn-betas": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "rope_theta": 700.0},
    "yarn-mscale": {**YARN, "mscale": 1.3, "mscale_all_dim": 0.7},
    "yarn-attention-factor": {**YARN, "attention_factor": 1.5},
    "yarn-no-truncate": {**YARN, "truncate": False},
}
SHAPES: dict[str, dict[str, Any]] = {
    "one-kv-head": {"num_key_value_heads": 1},
    "every-head-its-own": {"num_key_value_heads": 4},
    "head-dim-derived": {"head_dim": None, "hidden_size": 64},
    "head-dim-wide": {"head_dim": 64},
    "head-dim-8": {"head_dim": 8},
    "head-dim-odd-size": {"head_dim": 20, "num_attention_heads": 6, "num_key_value_heads": 3},
    "one-layer-narrow": {"num_hidden_layers": 1, "hidden_size": 20, "intermediate_size": 7, "head_dim": 6},
    "eps": {"rms_norm_eps": 1e-2},
    "vocab-61": {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2},
}


def prompt(num_tokens: int, vocab_size: int = 300) -> list[int]:
    return [random.Random(place).randrange(vocab_size) for place in range(num_tokens)]


def assert_float32_agrees(folder: Path, num_tokens: int = 70) -> None:
    with Stage(folder) as stage:
        ids = prompt(num_tokens, stage.spec.vocab_size)
        ours = stage.run([(0, ids)])
    theirs = oracle_logits(folder, ids)
    assert theirs.std() > 1, "logits that are all alike would prove nothing"
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(tmp_path: Path, family: str, tied: bool) -> None:
    assert_float32_agrees(make_tiny(tmp_path, family, tie_word_embeddings=tied))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_biases(tmp_path: Path, family: str) -> None:
    mlp = {"mlp_bias": True} if family == "llama" else {}
    assert_float32_agrees(make_tiny(tmp_path, family, attention_bias=True, **mlp))


@pytest.mark.parametrize("shape", SHAPES)
def test_shape(tmp_path: Path, shape: str) -> None:
    family = FAMILIES[list(SHAPES).index(shape) % 3]
    if shape == "head-dim-derived" and family == "qwen3":
        family = "qwen2"
    assert_float32_agrees(make_tiny(tmp_path, family, **SHAPES[shape]))


@pytest.mark.parametrize("rope", ROPES)
def test_rope(tmp_path: Path, rope: str) -> None:
    family = FAMILIES[list(ROPES).index(rope) % 3]
    assert_float32_agrees(make_tiny(tmp_path, family, rope_parameters={"rope_theta": 1e4, **ROPES[rope]}), 200)


@pytest.mark.parametrize("rope", ["default", "linear", "dynamic", "llama3", "yarn-mscale"])
def test_rope_in_the_old_spelling(tmp_path: Path, rope: str) -> None:
    values = dict(ROPES[rope])
    theta = values.pop("rope_theta", 2000.0)
    values["type"] = values.pop("rope_type")
    scaling = None if rope == "default" else values
    folder = make_tiny(tmp_path, "llama")
    assert_float32_agrees(
        edit_config(
            folder, remove=("rope_parameters", "dtype"), rope_theta=theta, rope_scaling=scaling, torch_dtype="float32"
        ),
        100,
    )


def test_dynamic_rope_asked_for_more_equals_transformers_at_that_length(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "llama", rope_parameters={"rope_theta": 1e4, **ROPES["dynamic"]})
    length = 400  # beyond the 256 of the config: transformers fixes the frequencies by the length that it sees
    with Stage(folder, max_positions=length) as stage:
        assert stage.spec.context_length == 256
        assert stage.spec.extended_context_length == 768
        ours = stage.run([(0, prompt(length))])
    assert np.abs(ours - oracle_logits(folder, prompt(length))).max() < 1e-3


@pytest.mark.parametrize("max_shard_size", ["5GB", "20KB"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_checkpoint_dtype_and_shards(tmp_path: Path, dtype: str, max_shard_size: str) -> None:
    folder = make_tiny(tmp_path, "qwen2", dtype=dtype, max_shard_size=max_shard_size, tie_word_embeddings=True)
    shards = len(list(folder.glob("model-*.safetensors")))
    assert (shards > 2) == (max_shard_size == "20KB")
    assert_float32_agrees(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16(tmp_path: Path, family: str) -> None:
    """Rounding to 8 bits of mantissa moves logits of spread 3 by some hundredths; so do two orders of rounding."""
    folder = make_tiny(tmp_path, family, dtype="bfloat16")
    with Stage(folder, "bfloat16") as stage:
        ours = stage.run([(0, prompt(70))])
    exact, theirs = oracle_logits(folder, prompt(70)), oracle_logits(folder, prompt(70), "bfloat16")
    our_error, their_error = np.abs(ours - exact), np.abs(theirs - exact)
    assert our_error.mean() < 0.02 * exact.std()
    assert our_error.max() < 0.15 * exact.std()
    assert our_error.mean() <= their_error.mean(), "activations stay in float32 here, transformers rounds them too"
    assert np.abs(ours - theirs).max() < 0.3 * exact.std()


def test_every_instruction_set_agrees(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "qwen3")
    theirs = oracle_logits(folder, prompt(40))
    for isa in available_isas():
        with Stage(folder, isa=isa, threads=2) as stage:
            assert np.abs(stage.run([(0, prompt(40))]) - theirs).max() < 1e-3, isa
