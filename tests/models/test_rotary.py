"""Tables of real models' rope configurations against transformers' own, at positions near and far."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from quire.layers.rotary import frequencies, make_rotary
from quire.model_spec import ModelSpec, RopeSpec

SPEC = ModelSpec(
    model_type="llama",
    architecture="LlamaForCausalLM",
    num_layers=1,
    hidden_size=256,
    intermediate_size=64,
    num_heads=2,
    num_kv_heads=1,
    head_dim=128,
    vocab_size=61,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope=RopeSpec(),
    tied_head=True,
)
CASES: dict[str, tuple[RopeSpec, dict[str, Any]]] = {
    "Llama-2": (RopeSpec(), {"rope_type": "default"}),
    "Qwen3": (RopeSpec(theta=1e6), {"rope_type": "default", "rope_theta": 1e6}),
    "hd64": (RopeSpec(theta=1e32), {"rope_type": "default", "rope_theta": 1e32}),
    "Llama-3.1": (
        RopeSpec("llama3", 500000.0, 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
    "Qwen2.5-YaRN": (
        RopeSpec("yarn", 1e6, 4.0, 32768),
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768},
    ),
    "linear": (RopeSpec("linear", 1e5, 4.0), {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}),
    "dynamic": (RopeSpec("dynamic", 1e4, 2.0), {"rope_type": "dynamic", "factor": 2.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope, parameters = CASES[name]
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_theta": 1e4, **parameters},
    )
    theirs = LlamaRotaryEmbedding(config)
    ours_D2, factor = frequencies(rope, 128, 32768, 32768)
    assert factor == pytest.approx(theirs.attention_scaling, abs=0)
    assert np.abs(ours_D2 / theirs.inv_freq.numpy() - 1).max() < 4e-7  # three units in the last place


@pytest.mark.parametrize("name", CASES)
def test_tables_at_far_positions(name: str) -> None:
    torch = pytest.importorskip("torch")
    rope = CASES[name][0]
    rotary = make_rotary(dataclasses.replace(SPEC, rope=rope), 20000)
    inv_freq_D2, factor = frequencies(rope, 128, 32768, 20000)
    places = torch.tensor([0, 1, 2, 17, 4095, 8191, 8192, 16384, 19999])
    angles = places[:, None].float() * torch.from_numpy(inv_freq_D2)
    assert rotary.cos_PD2.dtype == rotary.sin_PD2.dtype == np.float32
    assert rotary.cos_PD2.shape == (20000, 64)
    assert np.abs(rotary.cos_PD2[places] - (angles.cos() * factor).numpy()).max() < 5e-7
    assert np.abs(rotary.sin_PD2[places] - (angles.sin() * factor).numpy()).max() < 5e-7


def test_whole_context_by_default() -> None:
    spec = dataclasses.replace(SPEC, max_position_embeddings=100, rope=RopeSpec("linear", 1e4, 2.5))
    assert make_rotary(spec).cos_PD2.shape == (250, 64)


def test_dynamic_frequencies_never_depend_on_a_shorter_table() -> None:
    rope = RopeSpec("dynamic", 1e4, 2.0)
    short, long = (frequencies(rope, 128, 32768, length)[0] for length in (16, 32768))
    assert np.array_equal(short, long)
    assert not np.array_equal(short, frequencies(rope, 128, 32768, 40000)[0])
