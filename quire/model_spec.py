"""What a model is, in numbers: config.json as a `ModelSpec`.

Knows: the keys of Hugging Face configs, what they mean for Llama, Qwen2 and Qwen3, and which values we do not run.
Does not know: tensors, files other than config.json and generation_config.json, devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.errors import UnsupportedModel
from quire.typed_json import TypedJson, read_json

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")
MAX_HEAD_DIM = 256  # what the attention kernels are made for
NO_CONFIG = "Give the folder of a Hugging Face model: config.json, tokenizer.json and *.safetensors."


@dataclass(frozen=True, slots=True)
class Family:
    """What a model_type fixes that config.json does not say. `qkv_bias` None: `attention_bias` decides."""

    architecture: str
    qkv_bias: bool | None = None
    has_output_bias: bool = True
    has_mlp_bias: bool = False
    qk_norm: bool = False
    default_head_dim: int | None = None
    has_sliding_window: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family("LlamaForCausalLM", has_mlp_bias=True),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True, has_output_bias=False, has_sliding_window=True),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True, default_head_dim=128, has_sliding_window=True),
}


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding; the formula of each kind stands in `layers/rotary.py`.

    `original_max_position_embeddings` is the context before scaling (llama3, yarn). `attention_factor` None: computed
    from `factor`, `mscale` and `mscale_all_dim`.
    """

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer in numbers. `checkpoint_dtype` is what config.json says, None if it says nothing."""

    model_type: str
    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeSpec
    tied_head: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    checkpoint_dtype: str | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def block_matrices(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of a block's products: q, k and v joined, attention's output, gate and up joined, down."""
        hidden, wide = self.hidden_size, self.intermediate_size
        return (self.q_size + 2 * self.kv_size, hidden), (hidden, self.q_size), (2 * wide, hidden), (hidden, wide)

    @property
    def num_parameters(self) -> int:
        """Weights held in memory: a tied head counts once."""
        hidden, qkv = self.hidden_size, self.q_size + 2 * self.kv_size
        products = sum(outputs * inputs for outputs, inputs in self.block_matrices)
        biases = self.qkv_bias * qkv + self.output_bias * hidden + self.mlp_bias * (2 * self.intermediate_size + hidden)
        norms = 2 * hidden + self.qk_norm * 2 * self.head_dim
        embeddings = (1 if self.tied_head else 2) * self.vocab_size * hidden
        return self.num_layers * (products + biases + norms) + embeddings + hidden

    @property
    def context_length(self) -> int:
        """Tokens that the model was made for, scaling of its positions included.

        linear: the maximum times the factor; yarn: the original maximum times the factor. llama3 and dynamic: the
        configured maximum (llama3's has been multiplied already; dynamic's frequencies are the unscaled ones up to it).
        """
        return _context_length(self.rope, self.max_position_embeddings)

    @property
    def extended_context_length(self) -> int:
        """The most that --max-model-len may ask for: dynamic scaling can be stretched to factor times the maximum."""
        if self.rope.kind == "dynamic":
            return max(self.max_position_embeddings, int(self.max_position_embeddings * self.rope.factor))
        return self.context_length

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values of one token, all layers; `dtype` is bfloat16 or float32."""
        return 2 * self.num_layers * self.kv_size * DTYPE_BYTES[dtype]


def read_model_spec(folder: Path) -> ModelSpec:
    """Read `folder`/config.json (and the end ids of generation_config.json).

    Raises `BrokenCheckpoint` (missing, ill-typed or contradictory values) or `UnsupportedModel`, naming the key.
    """
    config = read_json(folder / "config.json", hint=NO_CONFIG)
    model_type, family = _family(config)
    hidden_size = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads")
    num_kv_heads = config.integer("num_key_value_heads", default=num_heads)
    head_dim = _head_dim(config, family, hidden_size, num_heads)
    if num_heads % num_kv_heads:
        raise config.bad("num_key_value_heads", num_kv_heads, f"a divisor of num_attention_heads = {num_heads}")
    max_positions = config.integer("max_position_embeddings")
    rope = _rope(config, max_positions, head_dim)
    _refuse(config, family, _context_length(rope, max_positions))
    vocab_size = config.integer("vocab_size")
    attention_bias = config.boolean("attention_bias", default=False)
    bos_ids = _ids(config, "bos_token_id", vocab_size)
    return ModelSpec(
        model_type=model_type,
        architecture=family.architecture,
        num_layers=config.integer("num_hidden_layers", high=10_000),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        vocab_size=vocab_size,
        max_position_embeddings=max_positions,
        rms_norm_eps=config.number("rms_norm_eps", default=1e-6, high=1.0),
        rope=rope,
        tied_head=config.boolean("tie_word_embeddings", default=False),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias and family.has_output_bias,
        mlp_bias=family.has_mlp_bias and config.boolean("mlp_bias", default=False),
        qk_norm=family.qk_norm,
        checkpoint_dtype=config.optional_text("dtype") or config.optional_text("torch_dtype"),
        bos_id=bos_ids[0] if bos_ids else None,
        eos_ids=_eos_ids(folder, config, vocab_size),
    )


def _context_length(rope: RopeSpec, max_positions: int) -> int:
    if rope.kind == "linear":
        return max(max_positions, int(max_positions * rope.factor))
    if rope.kind == "yarn":
        return max(max_positions, int(rope.original_max_position_embeddings * rope.factor))
    return max_positions


def _family(config: TypedJson) -> tuple[str, Family]:
    supported = ", ".join(family.architecture for family in FAMILIES.values())
    names = config.texts("architectures")
    model_type = config.text("model_type", default="")
    by_name = {family.architecture: model_type for model_type, family in FAMILIES.items()}
    if not names and not model_type:
        raise config.missing("architectures", supported)
    known = [name for name in names if name in by_name]
    if names and not known:
        raise UnsupportedModel(
            f"the architecture {', '.join(names)} is not supported", allowed=supported, param="architectures"
        )
    found = by_name[known[0]] if known else model_type
    if found not in FAMILIES:
        raise UnsupportedModel(f"the model type {model_type} is not supported", allowed=supported, param="model_type")
    if model_type and model_type != found:
        raise config.bad("model_type", model_type, f"{found}, which is what architectures = {known[0]} means")
    return found, FAMILIES[found]


def _head_dim(config: TypedJson, family: Family, hidden_size: int, num_heads: int) -> int:
    default = family.default_head_dim
    if not config.has("head_dim") and default is None:
        if hidden_size % num_heads:
            raise config.bad("num_attention_heads", num_heads, f"a divisor of hidden_size = {hidden_size}")
        default = hidden_size // num_heads
    head_dim = config.integer("head_dim", default=default)
    if head_dim % 2:
        raise config.bad("head_dim", head_dim, "an even number, rotary embedding turns pairs")
    if head_dim > MAX_HEAD_DIM:
        raise UnsupportedModel("head_dim is too large", got=head_dim, allowed=f"up to {MAX_HEAD_DIM}", param="head_dim")
    return head_dim


def _rope(config: TypedJson, max_positions: int, head_dim: int) -> RopeSpec:
    """Both spellings: `rope_scaling` beside `rope_theta`, and `rope_parameters` holding everything."""
    values = config.section("rope_scaling")
    if not values.values:
        values = config.section("rope_parameters")
    nested = [key for key, value in values.values.items() if isinstance(value, dict)]
    if nested:
        raise UnsupportedModel(
            "rope parameters by layer type are not supported", got=", ".join(nested), param="rope_parameters"
        )
    kind = values.text("rope_type", default=values.text("type", default="default"))
    if kind not in ROPE_KINDS:
        raise UnsupportedModel(
            "the rope type is not supported", got=kind, allowed=", ".join(ROPE_KINDS), param="rope_type"
        )
    for source in (config, values):
        _only(source, "partial_rotary_factor", source.number("partial_rotary_factor", default=1.0), (1.0,))
    theta = values if values.has("rope_theta") else config
    base = RopeSpec(kind=kind, theta=theta.number("rope_theta", default=10000.0, low=1.0))
    if kind == "default":
        return base
    if kind == "dynamic" and head_dim < 4:
        raise config.bad("head_dim", head_dim, "4 or more with dynamic rope")
    original = _original_positions(config, values, max_positions)
    factor = values.number("factor", default=max_positions / original if kind == "yarn" else None, high=1e6)
    return _scaled(base, values, factor, original)


def _original_positions(config: TypedJson, values: TypedJson, max_positions: int) -> int:
    """The context before scaling; the config's own value goes before the one among the rope parameters."""
    source = config if config.has("original_max_position_embeddings") else values
    return source.integer("original_max_position_embeddings", default=max_positions)


def _scaled(base: RopeSpec, values: TypedJson, factor: float, original: int) -> RopeSpec:
    if base.kind == "llama3":
        low, high = values.number("low_freq_factor"), values.number("high_freq_factor")
        if high <= low:
            raise values.bad("high_freq_factor", high, f"more than low_freq_factor = {low:g}")
        return RopeSpec("llama3", base.theta, factor, original, low_freq_factor=low, high_freq_factor=high)
    if base.kind != "yarn":
        return RopeSpec(base.kind, base.theta, factor)
    return RopeSpec(
        "yarn",
        base.theta,
        factor,
        original,
        beta_fast=values.number("beta_fast", default=32.0),
        beta_slow=values.number("beta_slow", default=1.0),
        mscale=values.optional_number("mscale", closed=True),
        mscale_all_dim=values.optional_number("mscale_all_dim", closed=True),
        attention_factor=values.optional_number("attention_factor"),
        truncate=values.boolean("truncate", default=True),
    )


def _refuse(config: TypedJson, family: Family, context_length: int) -> None:
    """Name the values that would change the output and that we do not compute."""
    _only(config, "hidden_act", config.text("hidden_act", default="silu"), ("silu", "swish"))
    for key in ("quantization_config", "compression_config"):
        if config.has(key):
            raise UnsupportedModel(
                "quantized checkpoints are not supported",
                got=config.section(key).text("quant_method", default="unnamed"),
                allowed="safetensors in bf16, fp16 or fp32",
                hint="Take the model that it was made from: --quantization int8 or int4 quantizes it while loading.",
                param=key,
            )
    if not family.has_sliding_window:
        return
    for kind in config.texts("layer_types"):
        _only(config, "layer_types", kind, ("full_attention",))
    if config.boolean("use_sliding_window", default=False) and config.has("sliding_window"):
        window = config.integer("sliding_window", low=0)
        first = config.integer("max_window_layers", default=28, low=0)
        full = bool(config.texts("layer_types"))  # they were all full attention
        if not full and first < config.integer("num_hidden_layers") and window < context_length:
            raise UnsupportedModel(
                "sliding window attention is not supported",
                got=f"a window of {window} in a context of {context_length}",
                param="use_sliding_window",
            )


def _only(config: TypedJson, key: str, got: object, allowed: tuple[object, ...]) -> None:
    if got not in allowed:
        names = ", ".join(str(value) for value in allowed)
        raise UnsupportedModel(
            f"this value of {key} in {config.file} is not supported", got=got, allowed=names, param=key
        )


def _eos_ids(folder: Path, config: TypedJson, vocab_size: int) -> tuple[int, ...]:
    """config.json's ids, then those that only generation_config.json has."""
    ids = _ids(config, "eos_token_id", vocab_size)
    if (folder / "generation_config.json").exists():
        ids += _ids(read_json(folder / "generation_config.json"), "eos_token_id", vocab_size)
    return tuple(dict.fromkeys(ids))


def _ids(config: TypedJson, key: str, vocab_size: int) -> tuple[int, ...]:
    """Ids outside the vocabulary are left out: no step can draw them (-1 and an unpruned config's ids are seen)."""
    return tuple(token for token in config.integers(key) if 0 <= token < vocab_size)


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The model's own sampling defaults; None where generation_config.json says nothing.

    `unused` names the settings in the file that would change the output and that sampling here does not know.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    do_sample: bool | None = None
    unused: tuple[str, ...] = ()

    def as_params(self) -> dict[str, Any]:
        """What was said, under the names of `SamplingParams`."""
        params = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": self.max_new_tokens,
        }
        return {name: value for name, value in params.items() if value is not None}


# Output-changing keys of transformers' generation config, with the values that change nothing.
INERT: Mapping[str, tuple[object, ...]] = {
    "num_beams": (1,), "typical_p": (1.0,), "epsilon_cutoff": (0.0,), "eta_cutoff": (0.0,), "top_h": (),
    "encoder_repetition_penalty": (1.0,), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,),
    "penalty_alpha": (0.0,), "guidance_scale": (1.0,), "bad_words_ids": ([],), "force_words_ids": ([],),
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "forced_bos_token_id": (), "forced_eos_token_id": (),
    "sequence_bias": ({},), "exponential_decay_length_penalty": (), "min_length": (0,), "min_new_tokens": (0,),
}  # fmt: skip


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """Read `folder`/generation_config.json, which may be absent. Raises `BrokenCheckpoint` naming the key."""
    path = folder / "generation_config.json"
    if not path.exists():
        return GenerationDefaults()
    config = read_json(path)
    return GenerationDefaults(
        temperature=config.optional_number("temperature", closed=True, high=2.0),
        top_p=config.optional_number("top_p", high=1.0),
        top_k=config.integer("top_k", low=-1) if config.has("top_k") else None,
        min_p=config.optional_number("min_p", closed=True, high=1.0),
        repetition_penalty=config.optional_number("repetition_penalty", high=10.0),
        max_new_tokens=config.integer("max_new_tokens") if config.has("max_new_tokens") else None,
        do_sample=config.boolean("do_sample", default=False) if config.has("do_sample") else None,
        unused=tuple(
            sorted(key for key, inert in INERT.items() if config.has(key) and config.values[key] not in inert)
        ),
    )
