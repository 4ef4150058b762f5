"""Cases of the ops that look at one row at a time: norm, activation, embedding, choosing rows.

Knows: their shapes in a step. Does not know: clocks, tables.

Legend: T rows, H hidden, I intermediate, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quire.measure.shapes import Shape
from quire.measure.timing import Case
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.linear import PackedWeight, pack
from quire.ops.rms_norm import rms_norm
from quire.ops.silu_mul import silu_mul

ROWS = (1, 32, 512)


def rowwise_cases(device: Device, shape: Shape) -> Iterator[Case]:
    """Operands lie in the cache, as they do behind the op that wrote them; the embedding's rows come from DRAM."""
    rng = np.random.default_rng(4)
    for num_rows in ROWS:
        yield _norm_case(device, rng.standard_normal((num_rows, shape.hidden_size), np.float32))
        yield _silu_case(device, rng.standard_normal((num_rows, 2 * shape.intermediate_size), np.float32))
    bits_VH = np.ones((shape.vocab_size, shape.hidden_size), np.uint16)
    weight = pack(device, [bits_VH], "bfloat16")
    for num_rows in ROWS:
        yield _embed_case(device, shape, weight, num_rows, rng)


def _norm_case(device: Device, x_TH: np.ndarray) -> Case:
    weight_H, out_TH = np.ones(x_TH.shape[1], np.float32), np.zeros_like(x_TH)

    def run(number: int) -> None:
        rms_norm(device, x_TH, weight_H, 1e-6, out_TH)

    return Case("rms_norm", f"{x_TH.shape[1]}", len(x_TH), "float32", 2 * x_TH.nbytes, 0, "float32", run, cached=True)


def _silu_case(device: Device, gate_up_T2I: np.ndarray) -> Case:
    out_TI = np.zeros((len(gate_up_T2I), gate_up_T2I.shape[1] // 2), np.float32)

    def run(number: int) -> None:
        silu_mul(device, gate_up_T2I, out_TI)

    num_bytes = gate_up_T2I.nbytes + out_TI.nbytes
    detail = f"{out_TI.shape[1]}"
    return Case("silu_mul", detail, len(out_TI), "float32", num_bytes, 0, "float32", run, cached=True)


def _embed_case(device: Device, shape: Shape, weight: PackedWeight, num_rows: int, rng: np.random.Generator) -> Case:
    ids = [rng.integers(0, shape.vocab_size, num_rows).astype(np.int32) for _ in range(256)]
    out_TH = np.zeros((num_rows, shape.hidden_size), np.float32)

    def run(number: int) -> None:
        embed(device, ids[number % len(ids)], weight, out_TH)

    num_bytes = num_rows * shape.hidden_size * 2 + out_TH.nbytes
    detail = f"{shape.vocab_size} x {shape.hidden_size}"
    return Case("embed", detail, num_rows, "bfloat16", num_bytes, 0, "float32", run)
