"""Models of the suite: Llama-3.1-8B's shape, and small ones of every family, with random weights made where they are
used.

Knows: configs, spreads of random weights. Does not know: checkpoints, what a model is run for.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quire.layers.rotary import Rotary, make_rotary
from quire.model_spec import ModelSpec, read_model_spec
from quire.models import Model, build_from
from quire.ops.device import Device
from quire.precision import Precision
from quire.quant import WeightFormat, find_format

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def tiny_config(family: str = "llama", **sizes: Any) -> dict[str, Any]:
    """A model of 0.1 M weights."""
    return {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **sizes,
    }


def main_config(tiny: bool) -> dict[str, Any]:
    """The model that speed is measured with."""
    return tiny_config() if tiny else LLAMA_8B


def spec_of(config: dict[str, Any]) -> ModelSpec:
    """As config.json says it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        return read_model_spec(Path(folder))


def random_tensor(name: str, shape: Sequence[int], where: Any) -> Any:
    """float32 on the torch device `where`; the same numbers for the same name and kind of device.

    Matrices keep a row's variance, embedding and head spread logits by about 3, norms stand near one.
    """
    import torch

    generator = torch.Generator(device=where).manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(tuple(shape), generator=generator, device=where)
    if name.endswith("bias"):
        return noise.mul_(0.5)
    if len(shape) == 1:
        return noise.mul_(0.2).add_(1)
    gain = 3.0 if "embed" in name or "lm_head" in name else 1.0
    return noise.mul_(gain / shape[1] ** 0.5)


class RandomSource:
    """Weights for layers that ask, made on `where` and packed on the device in the format they are held in."""

    def __init__(self, device: Any, precision: Precision, head_precision: Precision, where: Any) -> None:
        self.format, self.head_format = find_format(precision, device), find_format(head_precision, device)
        self._device, self._where = device, where

    def has(self, name: str) -> bool:
        """There is whatever is asked for, but a tied model has one matrix."""
        return True

    def matrix(self, format: WeightFormat, names: Sequence[str], num_outputs: Sequence[int], num_inputs: int) -> Any:
        """The modules `names` as one weight, rounded to bfloat16 first, as a checkpoint would have them."""
        import torch

        from quire.kernels.torch import pack

        parts = [
            random_tensor(f"{name}.weight", (size, num_inputs), self._where).to(torch.bfloat16).to(self._device.torch)
            for name, size in zip(names, num_outputs, strict=True)
        ]
        precision = format.precision
        if precision.dtype in ("bfloat16", "float16", "float32"):
            return pack.joined(parts, precision.dtype)
        return pack.quantized(parts, precision.dtype, precision.group_size, precision.symmetric)

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Any:
        """Joined vectors, float32."""
        import torch

        made = [random_tensor(name, (size,), self._where) for name, size in zip(names, sizes, strict=True)]
        return torch.cat(made).to(self._device.torch)

    def same(self, name: str, other: str, shape: tuple[int, ...]) -> None:
        """Nothing to compare."""


def random_model(
    spec: ModelSpec, device: Device, precision: Precision, head_precision: Precision, max_positions: int, where: Any
) -> Model:
    """A model on `device`, a torch device, its random numbers made on the torch device `where`."""
    rotary = make_rotary(spec, max_positions)
    there = Rotary(device.put(rotary.cos_PD2), device.put(rotary.sin_PD2))
    return build_from(spec, RandomSource(device, precision, head_precision, where), there)
