"""Cases of the matrix products: every matrix of a model, every weight format, some numbers of rows.

Knows: how weights are made that must come from DRAM at every call. Does not know: clocks, tables.

Legend: T rows, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from quire.measure.shapes import Shape
from quire.measure.timing import Case
from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack
from quire.plan import HEAD_ROWS

Pack = Callable[[Device, np.ndarray], PackedWeight]

FORMATS: Mapping[str, tuple[str, Pack]] = {
    "bfloat16": ("bfloat16", lambda device, bits_NK: pack(device, [bits_NK], "bfloat16")),
    "float32": ("float32", lambda device, bits_NK: pack(device, [bits_NK], "float32")),
}
"""Format -> (the kind of its multiply, how bfloat16 bits are packed)."""

DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "float32")
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
    x_TK = rng.standard_normal((most, num_inputs), np.float32)
    out_TN = np.zeros((most, num_outputs), np.float32)
    for name in formats:
        dtype, pack_bits = FORMATS[name]
        weights = [pack_bits(device, bits_NK)]
        while sum(weight.nbytes for weight in weights) < stream_bytes:
            weights.append(pack_bits(device, bits_NK))
        for num_rows in rows:
            if num_rows <= most:
                detail = f"{matrix} {num_outputs} x {num_inputs}"
                yield _case(device, detail, name, dtype, weights, x_TK[:num_rows], out_TN[:num_rows])


def _case(
    device: Device,
    detail: str,
    name: str,
    dtype: str,
    weights: Sequence[PackedWeight],
    x_TK: np.ndarray,
    out_TN: np.ndarray,
) -> Case:
    num_weights = len(weights)

    def run(number: int) -> None:
        linear(device, x_TK, weights[number % num_weights], out_TN)

    num_rows, num_inputs = x_TK.shape
    num_ops = 2 * num_rows * num_inputs * out_TN.shape[1]
    return Case("linear", detail, num_rows, name, weights[0].nbytes + x_TK.nbytes + out_TN.nbytes, num_ops, dtype, run)
