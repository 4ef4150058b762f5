"""`measure/kernels.py` on a tiny shape: every op is there, rates follow from bytes, operations and seconds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quire.errors import InvalidSetting
from quire.measure.kernels import OPS, Wanted, measure_kernels
from quire.measure.products import FORMATS
from quire.measure.shapes import SHAPES, Shape, named_shape
from quire.measure.timing import Case, Roof
from quire.ops.device import Device

TINY = Shape("tiny", 2, 96, 64, 3, 1, 32, 300, qk_norm=True)
MIB = 2**20


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    said: list[dict[str, Any]] = []
    wanted = Wanted(formats=tuple(FORMATS), rows=(1, 9), repeat=1, stream_bytes=MIB)
    with Device(2) as device:
        result = measure_kernels(device, TINY, wanted, said.append)
    assert said == result["rows"]
    return result


def test_every_op_and_format_is_measured(result: dict[str, Any]) -> None:
    assert {row["op"] for row in result["rows"]} >= {
        "linear",
        "attention",
        "rope_store",
        "rms_norm",
        "silu_mul",
        "embed",
        "sample",
    }
    products = [row for row in result["rows"] if row["op"] == "linear"]
    assert {row["format"] for row in products} == set(FORMATS)
    assert {row["detail"].split()[0] for row in products} == set(TINY.matrices)


def test_figures_are_positive_and_belong_together(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        assert row["microseconds"] > 0
        assert row["percent_of_roof"] > 0
        if row["op"] == "linear":
            num_outputs, _, num_inputs = row["detail"].split()[1:]
            num_ops = 2 * row["rows"] * int(num_outputs) * int(num_inputs)
            assert math.isclose(row["gflop_per_s"] * row["microseconds"] * 1e3, num_ops, rel_tol=2e-3)
    assert set(result["roof"]["peak_gflop_per_s"]) == {"float32", "bfloat16", "int8"}


def test_the_floor_is_the_slower_of_memory_and_arithmetic() -> None:
    with Device(1) as device:
        roofs = Roof(device, MIB)
        roofs.sample()
    memory = Case("x", "", 1, "", 10**9, 1, "float32", lambda number: None)
    compute = Case("x", "", 1, "", 1, 10**13, "float32", lambda number: None)
    assert roofs.floor_s(memory) == (10**9 / roofs.read, "DRAM")
    assert roofs.floor_s(compute) == (10**13 / roofs.peak("float32"), "float32")


def test_shapes_have_the_published_sizes() -> None:
    num_layers = {name: shape.num_layers for name, shape in SHAPES.items()}
    assert num_layers == {"qwen3-0.6b": 28, "llama-3.2-1b": 16, "smollm2-135m": 30}
    weights = {
        name: sum(n * k for matrix, (n, k) in shape.matrices.items() if matrix != "head") * shape.num_layers
        + shape.vocab_size * shape.hidden_size
        for name, shape in SHAPES.items()
    }
    assert {name: round(count / 1e6) for name, count in weights.items()} == {
        "qwen3-0.6b": 596,
        "llama-3.2-1b": 1236,
        "smollm2-135m": 134,
    }


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="shape"):
        named_shape("gpt-5")
    with pytest.raises(InvalidSetting, match="--op"):
        Wanted(ops=("matmul",)).check()
    with pytest.raises(InvalidSetting, match="--repeat"):
        Wanted(repeat=0).check()
    Wanted(ops=OPS).check()
