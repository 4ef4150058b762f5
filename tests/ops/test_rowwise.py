"""rms_norm, silu_mul and gather_rows against their references. Knows: the doors. Does not know: vectors' widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quire.kernels.reference.gather import gather_rows as reference_gather
from quire.kernels.reference.rms_norm import rms_norm as reference_rms_norm
from quire.kernels.reference.silu_mul import silu_mul as reference_silu_mul
from quire.ops.device import Device
from quire.ops.gather import gather_rows
from quire.ops.rms_norm import rms_norm
from quire.ops.silu_mul import silu_mul

DeviceOf = Callable[[int], Device]

WIDTHS = [*range(1, 36), 63, 64, 65, 127, 128, 576, 1000, 4095, 4097, 9000]
EPS = 1e-6


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def shifted(array: Any, offset: int) -> Any:
    """The same values at an address `offset` floats further from alignment."""
    room = np.full(array.size + 16, np.nan, dtype=np.float32)
    view = room[offset : offset + array.size].reshape(array.shape)
    view[...] = array
    return view


def hole(*shape: int) -> Any:
    return np.full(shape, np.nan, dtype=np.float32)


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_rms_norm_is_the_reference_at_every_width(device_of: DeviceOf, offset: int) -> None:
    for width in WIDTHS:
        x_TH, weight_H = shifted(random(width, 3, width) * 10, offset), shifted(random(1, width), offset + 1)
        out_TH = shifted(hole(3, width), offset + 2)
        rms_norm(device_of(2), x_TH, weight_H, EPS, out_TH)
        np.testing.assert_allclose(out_TH, reference_rms_norm(x_TH, weight_H, EPS), rtol=2e-6, atol=0)


def test_rms_norm_may_write_over_its_input(device_of: DeviceOf) -> None:
    x_TH, weight_H, out_TH = random(1, 9, 77), random(2, 77), hole(9, 77)
    rms_norm(device_of(2), x_TH, weight_H, EPS, out_TH)
    rms_norm(device_of(2), x_TH, weight_H, EPS, x_TH)
    assert np.array_equal(x_TH, out_TH)


def test_rms_norm_of_zeros_is_zero(device_of: DeviceOf) -> None:
    out_TH = hole(2, 33)
    rms_norm(device_of(1), np.zeros((2, 33), np.float32), random(1, 33), EPS, out_TH)
    assert not out_TH.any()


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_silu_mul_is_the_reference_at_every_width(device_of: DeviceOf, offset: int) -> None:
    for width in WIDTHS:
        gate_up_T2I = shifted(random(width, 3, 2 * width) * 8, offset)
        out_TI = shifted(hole(3, width), offset + 1)
        silu_mul(device_of(2), gate_up_T2I, out_TI)
        np.testing.assert_allclose(out_TI, reference_silu_mul(gate_up_T2I), rtol=1e-6, atol=1e-37)


def test_silu_is_accurate_over_the_whole_range_of_exp(device_of: DeviceOf) -> None:
    gate = np.concatenate([np.linspace(-87, 88, 200_001), [-1e30, 1e30, 0.0, -0.0, 1e-30]]).astype(np.float32)
    out_TI, gate_up_T2I = hole(1, len(gate)), np.concatenate([gate, np.ones_like(gate)])[None]
    silu_mul(device_of(2), gate_up_T2I, out_TI)
    np.testing.assert_allclose(out_TI, reference_silu_mul(gate_up_T2I), rtol=5e-7, atol=1e-36)


def test_bits_depend_on_the_row_alone(device_of: DeviceOf) -> None:
    x_TH, weight_H = random(1, 40, 700), random(2, 700)
    for threads in (1, 2, 3):
        together, gated = hole(40, 700), hole(40, 350)
        rms_norm(device_of(threads), x_TH, weight_H, EPS, together)
        silu_mul(device_of(threads), x_TH, gated)
        for t in range(0, 40, 7):
            alone, gated_alone = hole(1, 700), hole(1, 350)
            rms_norm(device_of(1), x_TH[t : t + 1], weight_H, EPS, alone)
            silu_mul(device_of(1), x_TH[t : t + 1], gated_alone)
            assert np.array_equal(alone[0], together[t])
            assert np.array_equal(gated_alone[0], gated[t])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_row_poisons_itself_alone(device_of: DeviceOf, poison: float) -> None:
    x_TH, weight_H, out_TH, gated_TI = random(1, 5, 70), random(2, 70), hole(5, 70), hole(5, 35)
    x_TH[2, 69] = poison
    rms_norm(device_of(2), x_TH, weight_H, EPS, out_TH)
    silu_mul(device_of(2), x_TH, gated_TI)
    others = np.arange(5) != 2
    assert np.isfinite(out_TH[others]).all()
    assert np.isfinite(gated_TI[others]).all()
    assert np.isnan(out_TH[2, 69])
    assert not np.isfinite(gated_TI[2, 34])


def test_gather_copies_rows(device_of: DeviceOf) -> None:
    x_TH, rows_R, out_RH = random(1, 20, 33), np.array([19, 0, 7, 7], dtype=np.int32), hole(4, 33)
    gather_rows(device_of(2), x_TH, rows_R, out_RH)
    assert np.array_equal(out_RH, reference_gather(x_TH, rows_R))


@pytest.mark.parametrize("bad", [-1, 20])
def test_gather_refuses_a_row_out_of_range(device_of: DeviceOf, bad: int) -> None:
    with pytest.raises(ValueError, match="rows_R must be at least 0"):
        gather_rows(device_of(1), random(1, 20, 3), np.array([bad], dtype=np.int32), hole(1, 3))


def test_no_rows_are_no_work(device_of: DeviceOf) -> None:
    rms_norm(device_of(2), hole(0, 8), random(1, 8), EPS, hole(0, 8))
    silu_mul(device_of(2), hole(0, 8), hole(0, 4))
    gather_rows(device_of(2), random(1, 3, 8), np.zeros(0, np.int32), hole(0, 8))


def test_wrong_shapes_and_types_are_refused(device_of: DeviceOf) -> None:
    device = device_of(1)
    with pytest.raises(ValueError, match="weight_H must have as many"):
        rms_norm(device, hole(2, 8), hole(7), EPS, hole(2, 8))
    with pytest.raises(ValueError, match="out_TH must have the shape"):
        rms_norm(device, hole(2, 8), hole(8), EPS, hole(3, 8))
    with pytest.raises(ValueError, match="twice its columns"):
        silu_mul(device, hole(2, 8), hole(2, 5))
    with pytest.raises(TypeError):
        rms_norm(device, hole(2, 8).astype(np.float64), hole(8), EPS, hole(2, 8))
    with pytest.raises(TypeError):
        silu_mul(device, hole(2, 16)[:, ::2], hole(2, 4))
