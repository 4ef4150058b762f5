"""Cases of the matrix products: every matrix of a model, every weight format, some numbers of rows.

Knows: how weights are made that must come from DRAM at every call. Does not know: clocks, tables.

Legend: T rows, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quire.measure.shapes import Shape
from quire.measure.timing import Case
from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack, quantize, quantize_planes
from quire.plan import HEAD_ROWS
from quire.precision import Precision

Pack = Callable[[Device, np.ndarray], PackedWeight]


def _packed(dtype: str) -> tuple[str, Pack]:
    return dtype, lambda device, bits_NK: pack(device, [bits_NK], dtype)


def _rounded(bits: int, group_size: int | None, symmetric: bool = True) -> tuple[str, Pack]:
    return "int8", lambda device, bits_NK: quantize(device, [bits_NK], bits, group_size, symmetric)


FORMATS: Mapping[str, tuple[str, Pack]] = {
    "bfloat16": _packed("bfloat16"),
    "float32": _packed("float32"),
    "int8": _rounded(8, None),
    "int8-g128": _rounded(8, 128),
    "int8-g32": _rounded(8, 32),
    "int4-g128": _rounded(4, 128),
    "int4-g64": _rounded(4, 64),
    "int4-g32": _rounded(4, 32),
    "int4-g32a": _rounded(4, 32, symmetric=False),
    "int4x2": ("int8", lambda device, bits_NK: quantize_planes(device, [bits_NK])),
}
"""Format -> (the kind of its multiply, how bfloat16 bits are packed)."""

DEFAULT_FORMATS = ("bfloat16", "int8", "int8-g128", "int4-g128", "int4-g32")
NORMED, GATED = ("qkv", "gate_up", "head"), ("down",)
"""Matrices whose rows are normalised, or gated, on their way in."""
DEFAULT_ROWS = (1, 8, 32, 128, 512)


def product_cases(
    device: Device, shape: Shape, matrix: str, formats: Sequence[str], rows: Sequence[int], stream_bytes: int
) -> Iterator[Case]:
    """Cases of one matrix; their weights, `stream_bytes` of each format, live as long as the cases."""
    num_outputs, num_inputs = shape.matrices[matrix]
    rng = np.random.default_rng(1)
    values_NK = rng.standard_normal((num_outputs, num_inputs), np.float32)
    bits_NK = (values_NK.view(np.uint32) >> 16).astype(np.uint16)
    most = min(max(rows), HEAD_ROWS) if matrix == "head" else max(rows)
    x_TK = rng.standard_normal((most, 2 * num_inputs if matrix in GATED else num_inputs), np.float32)
    norm = (np.ones(num_inputs, np.float32), 1e-6) if matrix in NORMED else None
    out_TN = np.zeros((most, num_outputs), np.float32)
    for name in formats:
        dtype, pack_bits = FORMATS[name]
        weights = [pack_bits(device, bits_NK)]
        while sum(weight.nbytes for weight in weights) < stream_bytes:
            weights.append(pack_bits(device, bits_NK))
        for num_rows in rows:
            if num_rows <= most:
                detail = f"{matrix} {num_outputs} x {num_inputs}"
                product = _Product(device, weights, x_TK[:num_rows], out_TN[:num_rows], norm, matrix in GATED)
                yield product.case(detail, name, dtype)


@dataclass(frozen=True, slots=True)
class _Product:
    device: Device
    weights: Sequence[PackedWeight]
    x_TK: np.ndarray
    out_TN: np.ndarray
    norm: tuple[np.ndarray, float] | None
    silu: bool

    def __call__(self, number: int) -> None:
        weight = self.weights[number % len(self.weights)]
        linear(self.device, self.x_TK, weight, self.out_TN, None, False, self.norm, self.silu)

    def case(self, detail: str, name: str, dtype: str) -> Case:
        """As it is timed: every product takes another copy of the weight."""
        weight, num_rows = self.weights[0], len(self.x_TK)
        rounded = Precision("int4x2")
        in_planes = rounded.read_bytes(weight.n, weight.k, num_rows) if weight.dtype == rounded.dtype else 0
        num_bytes = (in_planes or weight.nbytes) + self.x_TK.nbytes + self.out_TN.nbytes
        return Case("linear", detail, num_rows, name, num_bytes, 2 * num_rows * weight.n * weight.k, dtype, self)
