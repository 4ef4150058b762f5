"""Shapes of models: the sizes that an op's speed depends on.

Knows: sizes of some well-known models, and of any `ModelSpec`. Does not know: weights, ops, speeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quire.errors import InvalidSetting
from quire.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder in numbers."""

    name: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    qk_norm: bool = False

    @property
    def qkv_size(self) -> int:
        """Outputs of the joined query, key and value projection."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every matrix that a step multiplies with, as quire joins them."""
        return {
            "qkv": (self.qkv_size, self.hidden_size),
            "output": (self.hidden_size, self.num_heads * self.head_dim),
            "gate_up": (2 * self.intermediate_size, self.hidden_size),
            "down": (self.hidden_size, self.intermediate_size),
            "head": (self.vocab_size, self.hidden_size),
        }


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, 151936, qk_norm=True),
        Shape("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256),
        Shape("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152),
    )
}


def named_shape(name: str) -> Shape:
    """A shape by its name. Raises `InvalidSetting`."""
    if name not in SHAPES:
        raise InvalidSetting("--shape has no such value", got=name, allowed=", ".join(SHAPES))
    return SHAPES[name]


def shape_of(name: str, spec: ModelSpec) -> Shape:
    """The shape of a model's own config."""
    return Shape(
        name,
        spec.num_layers,
        spec.hidden_size,
        spec.intermediate_size,
        spec.num_heads,
        spec.num_kv_heads,
        spec.head_dim,
        spec.vocab_size,
        spec.qk_norm,
    )
