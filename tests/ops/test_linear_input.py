"""Norms and gated activations on the way into a product: the bits of the two ops one after the other.

Knows: the doors. Does not know: where the row is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack
from quire.ops.rms_norm import rms_norm
from quire.ops.silu_mul import silu_mul

DeviceOf = Callable[[int], Device]

DTYPES = ["bfloat16", "float32"]
SIZES = [(7, 1), (48, 64), (100, 576), (50, 63), (300, 1029), (5, 4097)]
ROWS = [1, 2, 5, 8, 9, 33, 70]
EPS = 1e-6


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(device: Device, x_TK: Any, weight: PackedWeight, **options: Any) -> Any:
    out_TN = np.full((len(x_TK), weight.n), np.nan, dtype=np.float32)
    linear(device, x_TK, weight, out_TN, **options)
    return out_TN


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_a_norm_on_the_way_in_is_the_norm_before(device_of: DeviceOf, n: int, k: int, dtype: str) -> None:
    weight, norm_K = pack(device_of(2), [random(1, n, k)], dtype), random(2, k)
    for rows in ROWS:
        x_TK = random(3, rows, k) * 3
        normed_TK = np.full_like(x_TK, np.nan)
        rms_norm(device_of(1), x_TK, norm_K, EPS, normed_TK)
        for threads in (1, 2, 3):
            fused_TN = product(device_of(threads), x_TK, weight, norm=(norm_K, EPS))
            assert np.array_equal(fused_TN, product(device_of(1), normed_TK, weight)), (rows, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_a_gate_on_the_way_in_is_the_gate_before(device_of: DeviceOf, n: int, k: int, dtype: str) -> None:
    weight = pack(device_of(2), [random(1, n, k)], dtype)
    for rows in ROWS:
        gate_up_T2K = random(3, rows, 2 * k) * 3
        gated_TK = np.full((rows, k), np.nan, dtype=np.float32)
        silu_mul(device_of(1), gate_up_T2K, gated_TK)
        for threads in (1, 2, 3):
            fused_TN = product(device_of(threads), gate_up_T2K, weight, silu=True)
            assert np.array_equal(fused_TN, product(device_of(1), gated_TK, weight)), (rows, threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_old_value_follow_as_ever(device_of: DeviceOf, dtype: str) -> None:
    weight, bias_N, old_TN = pack(device_of(1), [random(1, 100, 65)], dtype), random(2, 100), random(3, 9, 100)
    x_T2K, norm_K = random(4, 9, 130), random(5, 65)
    x_TK = np.ascontiguousarray(x_T2K[:, :65])
    for x, options in [(x_T2K, {"silu": True}), (x_TK, {"norm": (norm_K, EPS)})]:
        out_TN = old_TN.copy()
        linear(device_of(2), x, weight, out_TN, bias_N, accumulate=True, **options)
        assert np.array_equal(out_TN, product(device_of(1), x, weight, **options) + bias_N + old_TN)


def test_the_input_is_left_as_it_was(device_of: DeviceOf) -> None:
    weight, x_TK, gate_up_T2K = pack(device_of(2), [random(1, 50, 60)], "bfloat16"), random(2, 9, 60), random(3, 9, 120)
    before, gate_up_before = x_TK.copy(), gate_up_T2K.copy()
    product(device_of(2), x_TK, weight, norm=(random(4, 60), EPS))
    product(device_of(2), gate_up_T2K, weight, silu=True)
    assert np.array_equal(x_TK, before)
    assert np.array_equal(gate_up_T2K, gate_up_before)


def test_wrong_shapes_and_types_are_refused(device_of: DeviceOf) -> None:
    device = device_of(1)
    weight = pack(device, [random(1, 10, 6)], "float32")
    x_TK, norm_K, out_TN = random(2, 3, 6), random(3, 6), np.zeros((3, 10), dtype=np.float32)
    with pytest.raises(ValueError, match="weight_K must have as many"):
        linear(device, x_TK, weight, out_TN, norm=(random(3, 7), EPS))
    with pytest.raises(ValueError, match="twice as many with silu"):
        linear(device, x_TK, weight, out_TN, silu=True)
    with pytest.raises(ValueError, match="twice as many with silu"):
        linear(device, random(2, 3, 12), weight, out_TN)
    with pytest.raises(ValueError, match="not both"):
        linear(device, random(2, 3, 12), weight, out_TN, norm=(norm_K, EPS), silu=True)
    with pytest.raises(TypeError):
        linear(device, x_TK, weight, out_TN, norm=(norm_K.astype(np.float64), EPS))
