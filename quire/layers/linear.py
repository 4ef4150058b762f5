"""A linear layer, several checkpoint modules joined into one product.

Knows: its parts and their sizes. Does not know: what the parts mean, how the weight is held.

Legend: T tokens, K inputs, N outputs of all parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quire.layers.norm import Norm
from quire.layers.source import Float32, Source
from quire.ops.device import Device
from quire.quant import WeightFormat


@dataclass(frozen=True, slots=True)
class Linear:
    """out = x W^T (+ bias), parts side by side in the order of their declaration."""

    weight: Any
    bias_N: Float32 | None
    multiply: Any
    num_outputs: int
    refine: Any = None

    @classmethod
    def load(
        cls,
        source: Source,
        prefix: str,
        parts: Mapping[str, int],
        num_inputs: int,
        bias: bool = False,
        format: WeightFormat | None = None,
    ) -> Linear:
        """`parts` maps module names under `prefix` to their numbers of outputs. `format` is the blocks' by default."""
        format = format or source.format
        names = [f"{prefix}.{part}" if prefix else part for part in parts]
        sizes = list(parts.values())
        weight = source.matrix(format, names, sizes, num_inputs)
        bias_N = source.vector([f"{name}.bias" for name in names], sizes) if bias else None
        return cls(weight, bias_N, format.multiply, sum(sizes), format.refine)

    def __call__(
        self,
        device: Device,
        x_TK: Float32,
        out_TN: Float32,
        accumulate: bool = False,
        norm: Norm | None = None,
        silu: bool = False,
    ) -> None:
        """Write (or, with `accumulate`, add) the product to `out_TN`; with `norm` of the normalised rows, with `silu`
        of silu(gate) * up, where `x_TK` is [T, 2K]."""
        parts = None if norm is None else norm.parts
        self.multiply(device, x_TK, self.weight, out_TN, self.bias_N, accumulate, parts, silu)
