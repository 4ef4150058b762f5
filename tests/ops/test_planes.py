"""A head in two planes: rounding, which logits are exact, refining. Knows: doors. Does not know: layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quire.kernels.reference import planes as reference
from quire.kernels.reference.bf16 import from_bits, to_bits
from quire.kernels.reference.quantize import round_inputs
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.linear import PackedWeight, from_buffer, linear, quantize_planes, unpack
from quire.ops.program import Program
from quire.ops.refine import ALL, ALLOWED, NAMED, is_exact, refine, wanted
from quire.ops.rms_norm import rms_norm
from quire.precision import Precision

DeviceOf = Callable[[int], Device]
SIZES = [(7, 1), (48, 64), (100, 576), (129, 63), (49, 130), (97, 2200)]
LARGE = 48 * 130 + 5  # more panels than are read in full


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(device: Device, x_TK: Any, weight: PackedWeight, **options: Any) -> Any:
    out_TN = np.full((len(x_TK), weight.n), np.nan, dtype=np.float32)
    linear(device, x_TK, weight, out_TN, **options)
    return out_TN


def bits(array: Any) -> Any:
    return array.view(np.uint32)


def dequantized(weight_NK: Any) -> Any:
    scale_N, high_NK, low_NK = reference.quantize(weight_NK)
    return scale_N[:, None] * (16 * high_NK + low_NK).astype(np.float32)


def assert_close(out_TN: Any, expected_TN: Any, x_TK: Any, weight_NK: Any) -> None:
    """Integer sums are exact: what is left is float32 rounding and the last bit."""
    magnitude_TN = np.abs(round_inputs(x_TK)) @ np.abs(weight_NK).astype(np.float64).T
    assert np.all(np.abs(out_TN - expected_TN) <= 2e-6 * magnitude_TN + 1e-30)


def mask_of(allowed_RV: Any) -> Any:
    padded = np.zeros((len(allowed_RV), -(-allowed_RV.shape[1] // 32) * 32), bool)
    padded[:, : allowed_RV.shape[1]] = allowed_RV
    return np.packbits(padded, axis=1, bitorder="little").view(np.int32)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_weights_are_the_reference_and_small_heads_exact(device_of: DeviceOf, n: int, k: int) -> None:
    weight_NK, x_TK = random(1, n, k) * 0.02, random(2, 11, k)
    weight = quantize_planes(device_of(2), [weight_NK])
    assert np.array_equal(unpack(device_of(2), weight), dequantized(weight_NK))
    assert (weight.dtype, weight.nbytes) == ("int4x2", Precision("int4x2").packed_bytes(n, k))
    out_TN = product(device_of(2), x_TK, weight)
    assert is_exact(out_TN).all()
    assert_close(out_TN, reference.linear(x_TK, weight_NK)[1], x_TK, weight_NK)


def test_rows_of_one_sign_zeros_and_tiny_weights(device_of: DeviceOf) -> None:
    weight_NK = random(3, 60, 70)
    weight_NK[0], weight_NK[1], weight_NK[2] = np.abs(weight_NK[0]), -np.abs(weight_NK[1]), 0
    weight_NK[3] = 1e-39
    weight_NK[4, 5], weight_NK[4, 6] = 3, -3
    weight = quantize_planes(device_of(1), [weight_NK])
    assert np.array_equal(unpack(device_of(1), weight), dequantized(weight_NK))
    with pytest.raises(ValueError, match="infinity or a NaN"):
        quantize_planes(device_of(1), [np.full((50, 8), np.inf, np.float32)])


def test_parts_threads_and_types_change_no_byte(device_of: DeviceOf) -> None:
    bits_NK = to_bits(random(1, 1000, 260))
    whole = quantize_planes(device_of(1), [bits_NK])
    parts = quantize_planes(device_of(3), [bits_NK[:5].copy(), from_bits(bits_NK[5:900]), bits_NK[900:].copy()])
    assert np.array_equal(whole.buffer(), parts.buffer())
    again = from_buffer(1000, 260, "int4x2", 260, True, whole.buffer())
    assert np.array_equal(unpack(device_of(1), again), unpack(device_of(1), whole))
    out_TH = np.empty((3, 260), np.float32)
    embed(device_of(2), np.array([999, 0, 47], np.int32), again, out_TH)
    assert np.array_equal(out_TH, unpack(device_of(1), whole)[[999, 0, 47]])


def test_the_best_of_a_large_head_are_exact(device_of: DeviceOf) -> None:
    weight_NK, x_TK = random(1, LARGE, 96), random(2, 6, 96)
    weight = quantize_planes(device_of(2), [weight_NK])
    out_TN = product(device_of(2), x_TK, weight)
    rough_TN, exact_TN = reference.linear(x_TK, weight_NK)
    chosen_TN = is_exact(out_TN)
    assert_close(out_TN, np.where(chosen_TN, exact_TN, rough_TN), x_TK, dequantized(weight_NK))
    for row, rough_N in enumerate(rough_TN):
        least = reference.least_chosen(rough_N)
        assert not chosen_TN[row, rough_N < least - 1e-3].any()
        assert chosen_TN[row, rough_N > least + 1e-3].all()
        assert 64 <= chosen_TN[row].sum() < LARGE / 8
    assert np.array_equal(out_TN.argmax(axis=1), exact_TN.argmax(axis=1))


def test_a_row_has_the_same_bits_in_every_company(device_of: DeviceOf) -> None:
    x_TK, norm = random(2, 67, 136), (random(5, 136), 1e-6)
    weight = quantize_planes(device_of(1), [random(1, LARGE, 136)])
    alone_TN = np.concatenate([product(device_of(1), x_1K.copy(), weight, norm=norm) for x_1K in np.split(x_TK, 67)])
    for rows in (1, 2, 3, 4, 5, 8, 9, 33, 64, 65, 67):
        assert np.array_equal(bits(product(device_of(1), x_TK[:rows].copy(), weight, norm=norm)), bits(alone_TN[:rows]))
        last_TK = x_TK[len(x_TK) - rows :].copy()
        assert np.array_equal(bits(product(device_of(3), last_TK, weight, norm=norm)), bits(alone_TN[67 - rows :]))
    normed_TK = np.empty_like(x_TK)
    rms_norm(device_of(1), x_TK, *norm, normed_TK)
    assert np.array_equal(bits(product(device_of(2), normed_TK, weight)), bits(alone_TN))


def test_names_and_all_become_exact_and_the_rest_stays(device_of: DeviceOf) -> None:
    weight_NK, x_RK = random(1, LARGE, 96), random(2, 4, 96)
    weight = quantize_planes(device_of(2), [weight_NK])
    rough_RN = product(device_of(2), x_RK, weight)
    named = int(np.flatnonzero(~is_exact(rough_RN[0]))[0])
    best = int(rough_RN[0].argmax())
    out_RN = rough_RN.copy()
    asked = wanted([[named, best, named], [], [], [LARGE - 1]], [NAMED, NAMED, ALL, NAMED])
    for _ in range(2):  # asking twice changes nothing
        refine(device_of(3), x_RK, weight, out_RN, asked)
        assert is_exact(out_RN[0, [named, best]]).all()
        assert is_exact(out_RN[3, LARGE - 1])
        assert is_exact(out_RN[2]).all()
        kept = np.ones_like(out_RN, bool)
        kept[0, named], kept[3, LARGE - 1] = False, False
        kept[2] = is_exact(rough_RN[2])
        assert np.array_equal(bits(out_RN)[kept], bits(rough_RN)[kept])
    exact_RN = reference.linear(x_RK, weight_NK)[1]
    assert_close(out_RN[2:3], exact_RN[2:3], x_RK[2:3], dequantized(weight_NK))
    whole = wanted([[]] * 4, [ALL] * 4)
    refine(device_of(1), x_RK, weight, rough_RN, whole)
    assert np.array_equal(bits(rough_RN[2]), bits(out_RN[2]))
    assert bits(rough_RN)[0, named] == bits(out_RN)[0, named]


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.9999, 1.0])
def test_the_best_of_what_a_mask_allows(device_of: DeviceOf, share: float) -> None:
    weight_NK, x_RK, norm = random(1, LARGE, 96), random(2, 5, 96), (np.ones(96, np.float32), 1e-6)
    weight = quantize_planes(device_of(2), [weight_NK])
    rough_RN = product(device_of(2), x_RK, weight, norm=norm)
    allowed_RN = np.random.default_rng(7).random(rough_RN.shape) < share
    allowed_RN[:, 4800:4896] = True  # whole words of the mask
    out_RN, mask_RW = rough_RN.copy(), mask_of(allowed_RN)
    asked = wanted([[]] * 5, [ALLOWED, ALLOWED, NAMED, ALLOWED, ALLOWED])
    refine(device_of(2), x_RK, weight, out_RN, asked, mask_RW, norm)
    for row in (0, 1, 3, 4):
        least = reference.least_chosen(rough_RN[row], allowed_RN[row])
        expected = is_exact(rough_RN[row]) | (allowed_RN[row] & (rough_RN[row] >= least))
        assert np.array_equal(is_exact(out_RN[row]), expected)
        assert is_exact(out_RN[row])[np.flatnonzero(allowed_RN[row])[out_RN[row][allowed_RN[row]].argmax()]]
    assert np.array_equal(bits(out_RN[2]), bits(rough_RN[2]))
    one_RN = rough_RN[4:].copy()
    refine(device_of(1), x_RK[4:], weight, one_RN, wanted([[]], [ALLOWED]), mask_RW[4:].copy(), norm)
    assert np.array_equal(bits(one_RN[0]), bits(out_RN[4]))


def test_a_recorded_head_reads_its_rows_again(device_of: DeviceOf) -> None:
    device, weight = device_of(2), quantize_planes(device_of(2), [random(1, LARGE, 64)])
    x_RK, out_RN, program = random(2, 2, 64), np.empty((2, LARGE), np.float32), Program(device_of(2))
    with program.recording():
        linear(device, x_RK, weight, out_RN)
    x_RK[:] = random(3, 2, 64)
    program.replay()
    assert np.array_equal(bits(out_RN), bits(product(device, x_RK, weight)))


def test_a_row_that_is_not_finite_spoils_itself_alone(device_of: DeviceOf) -> None:
    weight, x_RK = quantize_planes(device_of(2), [random(1, LARGE, 64)]), random(2, 3, 64)
    before_RN = product(device_of(2), x_RK, weight)
    for value in (np.nan, np.inf):
        x_RK[1, 3] = value
        out_RN = product(device_of(2), x_RK, weight)
        refine(device_of(2), x_RK, weight, out_RN, wanted([[], [5], []], [NAMED, ALL, NAMED]))
        assert not np.isfinite(out_RN[1]).any()
        assert np.array_equal(bits(out_RN[[0, 2]]), bits(before_RN[[0, 2]]))


def test_what_does_not_fit_is_refused(device_of: DeviceOf) -> None:
    device, weight = device_of(1), quantize_planes(device_of(1), [random(1, 50, 8)])
    x_RK, out_RN = random(2, 2, 8), np.zeros((2, 50), np.float32)
    with pytest.raises(ValueError, match="no bias"):
        linear(device, x_RK, weight, out_RN, bias_N=np.zeros(50, np.float32))
    with pytest.raises(ValueError, match="no bias"):
        linear(device, x_RK, weight, out_RN, accumulate=True)
    with pytest.raises(ValueError, match="named_N"):
        refine(device, x_RK, weight, out_RN, wanted([[50], []]))
    with pytest.raises(ValueError, match="with a mask"):
        refine(device, x_RK, weight, out_RN, wanted([[], []], [ALLOWED, NAMED]))
    with pytest.raises(ValueError, match="starts_R1"):
        refine(device, x_RK, weight, out_RN, wanted([[], [], []]))
    with pytest.raises(ValueError, match="mask_RW"):
        refine(device, x_RK, weight, out_RN, wanted([[], []], [ALLOWED, NAMED]), np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match="length does not fit"):
        from_buffer(51, 8, "int4x2", 8, True, weight.buffer())


def test_bytes_read_are_the_high_plane_and_the_best() -> None:
    head = Precision("int4x2")
    assert head.packed_bytes(151936, 1024) == 78_212_864 + 151936 * 514
    assert head.read_bytes(151936, 1024) == 78_212_864 + 527 * 514
    assert head.read_bytes(1000, 64) == head.packed_bytes(1000, 64)
    assert Precision("int8").read_bytes(1000, 64) == Precision("int8").packed_bytes(1000, 64)
