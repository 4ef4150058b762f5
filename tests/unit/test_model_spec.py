"""config.json as a ModelSpec: both spellings, families' own rules, and refusals that name the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.errors import BrokenCheckpoint, StartError, UnsupportedModel
from quire.model_spec import GenerationDefaults, ModelSpec, RopeSpec, read_generation_defaults, read_model_spec

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008],
    "torch_dtype": "bfloat16",
    "attention_dropout": 0.0,
    "pretraining_tp": 1,
    "transformers_version": "4.43.0",
    "something_new": {"harmless": True},
}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {**LLAMA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(folder: Path, config: Any, generation: Any = None) -> ModelSpec:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return read_model_spec(folder)


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def test_llama_3_1(tmp_path: Path) -> None:
    spec = read(tmp_path, {**LLAMA, "rope_scaling": LLAMA3}, {"eos_token_id": [128001, 128009]})
    assert spec.rope == RopeSpec("llama3", 500000.0, 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    assert (spec.head_dim, spec.num_kv_heads, spec.q_size, spec.kv_size) == (128, 8, 4096, 1024)
    assert (spec.bos_id, spec.eos_ids) == (128000, (128001, 128008, 128009))
    assert (spec.tied_head, spec.qkv_bias, spec.output_bias, spec.mlp_bias, spec.qk_norm) == (False,) * 5
    assert spec.num_parameters == 8_030_261_248  # the published size of Llama 3.1 8B
    assert spec.kv_bytes_per_token("bfloat16") == 131072
    assert spec.kv_bytes_per_token("float32") == 262144
    assert spec.context_length == spec.extended_context_length == 131072
    assert spec.checkpoint_dtype == "bfloat16"


def test_qwen3_0_6b(tmp_path: Path) -> None:
    config = {
        **QWEN3,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "use_sliding_window": False,
        "sliding_window": None,
    }
    spec = read(tmp_path, config)
    assert spec.num_parameters == 596_049_920  # the published size
    assert spec.head_dim == 128, "Qwen3's own default, not hidden / heads"
    assert spec.qk_norm
    assert spec.kv_bytes_per_token("bfloat16") == 114_688


def test_qwen2_has_biases_whatever_the_config_says(tmp_path: Path) -> None:
    spec = read(tmp_path, {**QWEN2, "attention_bias": False, "mlp_bias": True})
    assert (spec.qkv_bias, spec.output_bias, spec.mlp_bias) == (True, False, False)


def test_llama_biases(tmp_path: Path) -> None:
    spec = read(tmp_path, {**LLAMA, "attention_bias": True, "mlp_bias": True})
    assert (spec.qkv_bias, spec.output_bias, spec.mlp_bias) == (True, True, True)


def test_either_spelling_of_rope_is_the_same(tmp_path: Path) -> None:
    old = read(tmp_path, {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4}})
    new = read(
        tmp_path,
        {
            **without(LLAMA, "rope_theta"),
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
        },
    )
    assert old == new
    assert old.context_length == 4 * 131072


@pytest.mark.parametrize(
    ("rope", "context", "extended"),
    [
        (None, 1000, 1000),
        ({"rope_type": "default"}, 1000, 1000),
        ({"rope_type": "linear", "factor": 2.5}, 2500, 2500),
        ({"rope_type": "dynamic", "factor": 2.5}, 1000, 2500),
        ({**LLAMA3, "original_max_position_embeddings": 100}, 1000, 1000),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 800}, 3200, 3200),
        ({"rope_type": "yarn", "factor": 4.0}, 4000, 4000),
        ({"rope_type": "yarn", "original_max_position_embeddings": 250}, 1000, 1000),
    ],
)
def test_context(tmp_path: Path, rope: Any, context: int, extended: int) -> None:
    spec = read(tmp_path, {**LLAMA, "max_position_embeddings": 1000, "rope_scaling": rope})
    assert (spec.context_length, spec.extended_context_length) == (context, extended)


def test_yarn_with_everything(tmp_path: Path) -> None:
    rope = {
        "rope_type": "yarn",
        "factor": 4,
        "original_max_position_embeddings": 32768,
        "beta_fast": 16,
        "beta_slow": 2,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "attention_factor": 1.25,
        "truncate": False,
    }
    expected = RopeSpec("yarn", 500000.0, 4.0, 32768, 1.0, 4.0, 16.0, 2.0, 1.0, 0.5, 1.25, False)
    assert read(tmp_path, {**LLAMA, "rope_scaling": rope}).rope == expected


def test_ids_that_cannot_be_drawn_are_left_out(tmp_path: Path) -> None:
    spec = read(tmp_path, {**LLAMA, "vocab_size": 300, "bos_token_id": -1, "eos_token_id": [2, 128009, -1, 2]})
    assert (spec.bos_id, spec.eos_ids) == (None, (2,))


def test_defaults_of_absent_keys(tmp_path: Path) -> None:
    config = without(
        LLAMA,
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "hidden_act",
        "bos_token_id",
        "eos_token_id",
        "torch_dtype",
    )
    spec = read(tmp_path, config)
    assert (spec.num_kv_heads, spec.rms_norm_eps, spec.rope) == (32, 1e-6, RopeSpec())
    assert (spec.bos_id, spec.eos_ids, spec.checkpoint_dtype) == (None, (), None)


def test_architecture_or_model_type_is_enough(tmp_path: Path) -> None:
    assert read(tmp_path, without(QWEN2, "architectures")).model_type == "qwen2"
    assert read(tmp_path, without(QWEN2, "model_type")).model_type == "qwen2"


UNSUPPORTED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "architecture": (
        {"architectures": ["MambaForCausalLM"]},
        ("MambaForCausalLM", "LlamaForCausalLM, Qwen2ForCausalLM"),
    ),
    "no generation": ({"architectures": ["LlamaForSequenceClassification"]}, ("LlamaForSequenceClassification",)),
    "hidden_act": ({"hidden_act": "gelu"}, ("hidden_act", "gelu", "silu")),
    "quantization": ({"quantization_config": {"quant_method": "gptq"}}, ("gptq", "quantized")),
    "rope type": ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, ("longrope", "yarn")),
    "rope by layer": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ("full_attention",)),
    "partial rotary": ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor", "0.5")),
    "partial rotary inside": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
    "wide heads": ({"head_dim": 512}, ("head_dim", "512", "256")),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_values_are_named(tmp_path: Path, case: str) -> None:
    change, said = UNSUPPORTED[case]
    with pytest.raises(UnsupportedModel) as caught:
        read(tmp_path, {**LLAMA, **change})
    assert all(part in str(caught.value) for part in said)


def test_unknown_model_type_without_architectures(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"model type gpt2.*LlamaForCausalLM"):
        read(tmp_path, {**without(LLAMA, "architectures"), "model_type": "gpt2"})


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28},
        {"layer_types": ["full_attention", "sliding_attention"] * 16},
    ],
)
def test_sliding_windows_in_use_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match="sliding"):
        read(tmp_path, {**QWEN2, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": False, "sliding_window": 4096},
        {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 32},
        {"use_sliding_window": True, "sliding_window": 131072, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": None},
        {"layer_types": ["full_attention"] * 32, "use_sliding_window": True, "sliding_window": 4096},
    ],
)
def test_windows_that_hide_nothing_are_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    assert read(tmp_path, {**QWEN2, **change}).model_type == "qwen2"


BROKEN: dict[str, dict[str, Any]] = {
    "hidden_size": {"hidden_size": 0},
    "intermediate_size": {"intermediate_size": -5},
    "num_hidden_layers": {"num_hidden_layers": 10**9},
    "num_attention_heads": {"num_attention_heads": 2.0},
    "num_key_value_heads": {"num_key_value_heads": 5},
    "vocab_size": {"vocab_size": True},
    "max_position_embeddings": {"max_position_embeddings": "many"},
    "rms_norm_eps": {"rms_norm_eps": 0},
    "rope_theta": {"rope_theta": -1},
    "head_dim": {"head_dim": 63},
    "tie_word_embeddings": {"tie_word_embeddings": "yes"},
    "attention_bias": {"attention_bias": 1},
    "eos_token_id": {"eos_token_id": ["</s>"]},
    "bos_token_id": {"bos_token_id": 1.5},
    "torch_dtype": {"torch_dtype": 16},
    "architectures": {"architectures": "LlamaForCausalLM"},
    "model_type": {"model_type": "qwen3"},
    "hidden_act": {"hidden_act": 3},
    "rope_scaling": {"rope_scaling": [4.0]},
    "factor": {"rope_scaling": {"rope_type": "linear"}},
    "low_freq_factor": {"rope_scaling": without(LLAMA3, "low_freq_factor")},
    "high_freq_factor": {"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}},
    "original_max_position_embeddings": {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 0}},
    "truncate": {"rope_scaling": {"rope_type": "yarn", "truncate": "no"}},
}


@pytest.mark.parametrize("key", BROKEN)
def test_broken_values_are_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(BrokenCheckpoint) as caught:
        read(tmp_path, {**LLAMA, **BROKEN[key]})
    assert key in str(caught.value)
    assert caught.value.param == key
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    ],
)
def test_missing_sizes_are_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(BrokenCheckpoint, match=f"has no {key}"):
        read(tmp_path, without(LLAMA, key))


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match="divisor of hidden_size"):
        read(tmp_path, {**LLAMA, "num_attention_heads": 24, "num_key_value_heads": 8, "hidden_size": 4100})


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", '{"hidden_size": NaN}', "[" * 100000, "1" * 5000])
def test_config_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BrokenCheckpoint, match=r"config\.json"):
        read_model_spec(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match=r"there is no config\.json"):
        read_model_spec(tmp_path)
    with pytest.raises(BrokenCheckpoint, match=r"there is no config\.json"):
        read_model_spec(tmp_path / "absent")


odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "truncate", "x"]), st.integers() | st.text(max_size=6)
    )
)
KEYS = sorted({*LLAMA, "rope_scaling", "rope_parameters", "head_dim", "tie_word_embeddings", "quantization_config",
               "sliding_window", "use_sliding_window", "layer_types", "attention_bias", "dtype"})  # fmt: skip


@given(st.sampled_from([LLAMA, QWEN2, QWEN3]), st.dictionaries(st.sampled_from(KEYS), odd, min_size=1, max_size=3))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_read_or_refused(tmp_path: Path, config: dict[str, Any], changes: dict[str, Any]) -> None:
    spec, said = None, ""
    try:
        spec = read(tmp_path, {**config, **changes})
    except StartError as error:
        said = str(error)
    assert len(said) < 1500
    if spec is not None:
        assert spec.num_parameters > 0
        assert spec.num_heads % spec.num_kv_heads == 0
        assert spec.context_length > 0


def test_generation_defaults(tmp_path: Path) -> None:
    assert read_generation_defaults(tmp_path) == GenerationDefaults()
    values = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0,
        "repetition_penalty": 1.05,
        "max_new_tokens": 2048,
        "eos_token_id": [1, 2],
        "num_beams": 4,
        "no_repeat_ngram_size": 0,
        "transformers_version": "4.51.0",
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    defaults = read_generation_defaults(tmp_path)
    assert defaults == GenerationDefaults(0.6, 0.95, 20, 0.0, 1.05, 2048, True, ("num_beams",))
    assert defaults.as_params() == {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.0,
        "repetition_penalty": 1.05,
        "max_tokens": 2048,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_k", 1.5),
        ("min_p", 2),
        ("repetition_penalty", 0),
    ],
)
def test_broken_generation_defaults(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(BrokenCheckpoint, match=key):
        read_generation_defaults(tmp_path)
