"""Packing weights. Knows: pack, unpack, embed and the bf16 reference. Does not know: the panels' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.kernels.reference.bf16 import from_bits, round_to_bf16, to_bits
from quire.kernels.reference.embed import embed as reference_embed
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.linear import pack, unpack

DEVICE = Device(3)
SPECIAL = [0.0, -0.0, 1.0, 3.4028235e38, -3.4028235e38, np.inf, -np.inf, np.nan, 1e-45, 1.1754944e-38, 65504.0]


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (48, 32), (49, 33), (200, 172), (151, 1023)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_unpack_gives_back_what_was_packed(n: int, k: int, dtype: str) -> None:
    weight_NK = random(1, n, k)
    weight = pack(DEVICE, [weight_NK], dtype)
    assert (weight.n, weight.k, weight.dtype) == (n, k, dtype)
    assert weight.nbytes >= n * k * (2 if dtype == "bfloat16" else 4)
    assert np.array_equal(unpack(DEVICE, weight), weight_NK if dtype == "float32" else round_to_bf16(weight_NK))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_parts_of_all_types_stand_one_below_the_other(dtype: str) -> None:
    single, half, brain = random(1, 50, 37), random(2, 3, 37).astype(np.float16), to_bits(random(3, 90, 37))
    out_NK = unpack(DEVICE, pack(DEVICE, [single, half, brain], dtype))
    expected_NK = np.concatenate([single, half.astype(np.float32), from_bits(brain)])
    assert np.array_equal(out_NK, round_to_bf16(expected_NK) if dtype == "bfloat16" else expected_NK)


def test_every_float16_value_is_read_exactly() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    out_NK = unpack(DEVICE, pack(DEVICE, [every], "float32"))
    assert np.array_equal(out_NK, every.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(out_NK), np.signbit(every))


def test_every_bfloat16_value_is_kept_bit_for_bit() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(unpack(DEVICE, pack(DEVICE, [every], "bfloat16")).view(np.uint32) >> 16, every)


def test_special_float32_values_round_as_the_reference() -> None:
    values = np.array([SPECIAL], dtype=np.float32)
    out = unpack(DEVICE, pack(DEVICE, [values], "bfloat16"))
    assert np.array_equal(out, round_to_bf16(values), equal_nan=True)


@given(st.floats(width=32))
def test_bfloat16_is_the_nearest_with_ties_to_even(x: float) -> None:
    rounded = float(round_to_bf16(np.array([x], dtype=np.float32))[0])
    if np.isnan(x):
        assert np.isnan(rounded)
        return
    bits = int(np.array([abs(x)], dtype=np.float32).view(np.uint32)[0])
    low, high = (float(from_bits(np.array([(bits >> 16) + up], dtype=np.uint16))[0]) for up in (0, 1))
    position = bits & 0xFFFF
    nearest = low if position < 0x8000 or (position == 0x8000 and not bits >> 16 & 1) else high
    assert abs(rounded) == nearest
    assert np.signbit(rounded) == np.signbit(x)


def test_a_memory_mapped_part_is_read(tmp_path: Path) -> None:
    bits = to_bits(random(1, 60, 40))
    (tmp_path / "part").write_bytes(bits.tobytes())
    part = np.memmap(tmp_path / "part", dtype=np.uint16, mode="r", shape=(60, 40))
    assert np.array_equal(unpack(DEVICE, pack(DEVICE, [part], "bfloat16")), from_bits(bits))


def test_a_part_may_begin_at_an_odd_address() -> None:
    bits = to_bits(random(1, 60, 40))
    part = np.frombuffer(b"x" + bits.tobytes(), dtype=np.uint8)[1:].view(np.uint16).reshape(60, 40)
    assert np.array_equal(unpack(DEVICE, pack(DEVICE, [part], "bfloat16")), from_bits(bits))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_embed_gathers_rows(dtype: str) -> None:
    weight_VH = random(1, 300, 65)
    ids_T = np.array([299, 0, 5, 5, 48, 47], dtype=np.int32)
    out_TH = np.full((6, 65), np.nan, dtype=np.float32)
    embed(DEVICE, ids_T, pack(DEVICE, [weight_VH], dtype), out_TH)
    assert np.array_equal(out_TH, reference_embed(ids_T, weight_VH, dtype))


@pytest.mark.parametrize("bad", [-1, 300, 2**31 - 1])
def test_embed_refuses_an_id_out_of_range(bad: int) -> None:
    weight = pack(DEVICE, [random(1, 300, 4)], "bfloat16")
    with pytest.raises(ValueError, match="ids_T must be at least 0"):
        embed(DEVICE, np.array([0, bad], dtype=np.int32), weight, np.zeros((2, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("parts", "dtype", "error"),
    [
        ([], "float32", ValueError),
        ([np.zeros((0, 4), np.float32)], "float32", ValueError),
        ([np.zeros((4, 0), np.float32)], "float32", ValueError),
        ([np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)], "float32", ValueError),
        ([np.zeros((2, 4), np.float64)], "float32", ValueError),
        ([np.zeros((2, 4), np.int16)], "bfloat16", ValueError),
        ([np.zeros((2, 4), np.float32)], "int4", ValueError),
        ([np.zeros(4, np.float32)], "float32", TypeError),
        ([np.zeros((4, 2), np.float32).T], "float32", TypeError),
        (["text"], "float32", TypeError),
    ],
)
def test_pack_refuses_what_it_cannot_read(parts: list[Any], dtype: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="pack"):
        pack(DEVICE, parts, dtype)
