"""linear against its reference, and the laws of its bits. Knows: the door. Does not know: tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference import linear as reference
from quire.kernels.reference.bf16 import to_bits
from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack

DeviceOf = Callable[[int], Device]

SIZES = [(7, 1), (48, 64), (64, 172), (100, 576), (512, 63), (1024, 300), (1000, 1029), (1, 5), (49, 2), (5000, 33)]
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 33, 63, 64, 65, 70]
DTYPES = ["bfloat16", "float32"]


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(device: Device, x_TK: Any, weight: PackedWeight, **options: Any) -> Any:
    """x W^T into an array full of NaN, so that a hole in the output shows."""
    out_TN = np.full((len(x_TK), weight.n), np.nan, dtype=np.float32)
    linear(device, x_TK, weight, out_TN, **options)
    return out_TN


def assert_close(out_TN: Any, x_TK: Any, weight_NK: Any, dtype: str, **options: Any) -> None:
    expected_TN = reference.linear(x_TK, weight_NK, dtype, **options)
    # A float32 sum of K products is within K/2 roundings of 2^-24 of the magnitudes; random signs leave far less.
    tolerance_TN = 4e-7 * np.sqrt(x_TK.shape[1]) * reference.magnitude(x_TK, weight_NK) + 1e-6
    assert np.all(np.abs(out_TN - expected_TN) <= tolerance_TN)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_it_is_the_reference_for_awkward_sizes(device_of: DeviceOf, n: int, k: int, dtype: str) -> None:
    weight_NK, x_TK = random(1, n, k), random(2, 11, k)
    weight = pack(device_of(2), [weight_NK], dtype)
    assert_close(product(device_of(2), x_TK, weight), x_TK, weight_NK, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_then_the_old_value_are_added(device_of: DeviceOf, dtype: str) -> None:
    weight_NK, x_TK, bias_N, old_TN = random(1, 100, 65), random(2, 9, 65), random(3, 100), random(4, 9, 100)
    weight = pack(device_of(2), [weight_NK], dtype)
    plain_TN = product(device_of(2), x_TK, weight)
    with_bias_TN = product(device_of(2), x_TK, weight, bias_N=bias_N)
    out_TN = old_TN.copy()
    linear(device_of(2), x_TK, weight, out_TN, bias_N, accumulate=True)
    assert np.array_equal(with_bias_TN, plain_TN + bias_N)
    assert np.array_equal(out_TN, plain_TN + bias_N + old_TN)
    assert_close(out_TN, x_TK, weight_NK, dtype, bias_N=bias_N, old_TN=old_TN)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(100, 172), (1024, 577), (7, 2100)])
def test_a_row_has_the_same_bits_in_every_company(device_of: DeviceOf, n: int, k: int, dtype: str) -> None:
    x_TK = random(2, max(ROWS), k)
    weight = pack(device_of(1), [random(1, n, k)], dtype)
    alone_TN = np.concatenate([product(device_of(1), row_1K.copy(), weight) for row_1K in np.split(x_TK, len(x_TK))])
    for rows in ROWS:
        assert np.array_equal(product(device_of(1), x_TK[:rows].copy(), weight), alone_TN[:rows]), rows
        last = len(x_TK) - rows
        assert np.array_equal(product(device_of(2), x_TK[last:].copy(), weight), alone_TN[last:]), rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 8, 70, 200])
def test_the_number_of_threads_changes_no_bit(device_of: DeviceOf, rows: int, dtype: str) -> None:
    x_TK = random(2, rows, 260)
    weight = pack(device_of(3), [random(1, 1000, 260)], dtype)
    one_TN = product(device_of(1), x_TK, weight)
    for threads in (2, 3, 7):
        assert np.array_equal(product(device_of(threads), x_TK, weight), one_TN)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_row_poisons_itself_alone(device_of: DeviceOf, poison: float, dtype: str) -> None:
    x_TK = random(2, 11, 65)
    weight = pack(device_of(2), [random(1, 100, 65)], dtype)
    clean_TN = product(device_of(2), x_TK, weight)
    x_TK[4, 64] = poison
    out_TN = product(device_of(2), x_TK, weight)
    others = np.arange(11) != 4
    assert np.array_equal(out_TN[others], clean_TN[others])
    assert not np.isfinite(out_TN[4]).any()


def test_activations_are_rounded_to_bfloat16_ties_to_even(device_of: DeviceOf) -> None:
    below, tie_down, tie_up = 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8
    x_TK = np.array([[below], [tie_down], [tie_up], [-tie_down], [3.3e38]], dtype=np.float32)
    weight = pack(device_of(1), [np.ones((1, 1), dtype=np.float32)], "bfloat16")
    assert product(device_of(1), x_TK, weight)[:4, 0].tolist() == [1.0, 1.0, 1 + 4 * 2**-8, -1.0]
    assert np.array_equal(to_bits(product(device_of(1), x_TK, weight)), to_bits(x_TK))


@settings(deadline=None, max_examples=30)
@given(cuts=st.sets(st.integers(1, 99), max_size=6), threads=st.sampled_from([1, 2, 3]))
def test_a_prompt_in_chunks_has_the_bits_of_the_whole(device_of: DeviceOf, cuts: set[int], threads: int) -> None:
    x_TK = random(2, 100, 70)
    weight = pack(device_of(1), [random(1, 120, 70)], "bfloat16")
    whole_TN = product(device_of(1), x_TK, weight)
    chunks = [product(device_of(threads), chunk_TK.copy(), weight) for chunk_TK in np.split(x_TK, sorted(cuts))]
    assert np.array_equal(np.concatenate(chunks), whole_TN)


def test_no_rows_are_no_work(device_of: DeviceOf) -> None:
    weight = pack(device_of(2), [random(1, 10, 6)], "bfloat16")
    assert product(device_of(2), random(2, 0, 6), weight).shape == (0, 10)


def test_neighbours_in_memory_are_not_touched(device_of: DeviceOf) -> None:
    weight = pack(device_of(2), [random(1, 50, 6)], "bfloat16")
    arena = np.full(3 * 50 + 100, 7.0, dtype=np.float32)
    out_TN = arena[49 : 49 + 150].reshape(3, 50)
    linear(device_of(2), random(2, 3, 6), weight, out_TN)
    assert np.all(arena[:49] == 7.0)
    assert np.all(arena[199:] == 7.0)


def test_wrong_shapes_and_types_are_refused(device_of: DeviceOf) -> None:
    device = device_of(1)
    weight = pack(device, [random(1, 10, 6)], "float32")
    x_TK, out_TN = random(2, 3, 6), np.zeros((3, 10), dtype=np.float32)
    with pytest.raises(ValueError, match="x_TK must have as many columns"):
        linear(device, random(2, 3, 7), weight, out_TN)
    with pytest.raises(ValueError, match="out_TN must have the rows"):
        linear(device, x_TK, weight, np.zeros((4, 10), dtype=np.float32))
    with pytest.raises(ValueError, match="bias_N must have as many"):
        linear(device, x_TK, weight, out_TN, np.zeros(9, dtype=np.float32))
    transposed = np.zeros((10, 3), dtype=np.float32).T
    for x, out in [(x_TK.astype(np.float64), out_TN), (x_TK, out_TN.astype(np.float64)), (x_TK, transposed)]:
        with pytest.raises(TypeError):
            linear(device, x, weight, out)
