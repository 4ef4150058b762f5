"""int8 and int4 weights: rounding, products, bytes against the reference. Knows: doors. Does not know: layouts."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference import quantize as reference
from quire.kernels.reference.bf16 import from_bits, to_bits
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.linear import PackedWeight, from_buffer, linear, quantize, unpack
from quire.ops.rms_norm import rms_norm

DeviceOf = Callable[[int], Device]


class Format(NamedTuple):
    bits: int
    group_size: int | None
    symmetric: bool = True


FORMATS = [
    Format(8, None), Format(8, 128), Format(8, 32),
    Format(4, None), Format(4, 128), Format(4, 64), Format(4, 32), Format(4, 128, False), Format(4, 32, False),
]  # fmt: skip
SIZES = [(7, 1), (48, 64), (64, 172), (100, 576), (129, 63), (200, 300), (49, 2), (500, 33), (97, 2200)]
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 33, 63, 64, 65, 70]


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(device: Device, x_TK: Any, weight: PackedWeight, **options: Any) -> Any:
    """x W^T into an array full of NaN, so that a hole in the output shows."""
    out_TN = np.full((len(x_TK), weight.n), np.nan, dtype=np.float32)
    linear(device, x_TK, weight, out_TN, **options)
    return out_TN


def assert_close(out_TN: Any, x_TK: Any, dequantized_NK: Any) -> None:
    """Integer sums are exact: what is left is float32 rounding, once or twice per group."""
    x_TK = reference.round_inputs(x_TK)
    magnitude_TN = np.abs(x_TK) @ np.abs(dequantized_NK).astype(np.float64).T
    assert np.all(np.abs(out_TN - x_TK @ dequantized_NK.astype(np.float64).T) <= 1e-6 * magnitude_TN + 1e-30)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_weights_and_products_are_the_reference(device_of: DeviceOf, n: int, k: int, form: Format) -> None:
    weight_NK, x_TK = random(1, n, k) * 0.02, random(2, 11, k)
    weight = quantize(device_of(2), [weight_NK], *form)
    dequantized_NK = unpack(device_of(2), weight)
    assert np.array_equal(dequantized_NK, reference.quantize(weight_NK, *form))
    assert_close(product(device_of(2), x_TK, weight), x_TK, dequantized_NK)


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_has_the_same_bits_in_every_company(device_of: DeviceOf, form: Format) -> None:
    x_TK = random(2, max(ROWS), 2180)
    weight = quantize(device_of(1), [random(1, 150, 2180)], *form)
    alone_TN = np.concatenate([product(device_of(1), row_1K.copy(), weight) for row_1K in np.split(x_TK, len(x_TK))])
    for rows in ROWS:
        assert np.array_equal(product(device_of(1), x_TK[:rows].copy(), weight), alone_TN[:rows]), rows
        last = len(x_TK) - rows
        assert np.array_equal(product(device_of(2), x_TK[last:].copy(), weight), alone_TN[last:]), rows


@pytest.mark.parametrize("form", FORMATS)
def test_threads_and_the_way_in_parts_change_no_byte(device_of: DeviceOf, form: Format) -> None:
    weight_NK, x_TK = random(1, 1000, 260), random(2, 70, 260)
    whole = quantize(device_of(1), [weight_NK], *form)
    parts = quantize(device_of(3), [weight_NK[:5].copy(), weight_NK[5:900].copy(), weight_NK[900:].copy()], *form)
    assert np.array_equal(whole.buffer(), parts.buffer())
    assert np.array_equal(product(device_of(1), x_TK, whole), product(device_of(3), x_TK, parts))


@pytest.mark.parametrize("form", FORMATS)
def test_half_precision_weights_are_widened_first(device_of: DeviceOf, form: Format) -> None:
    weight_NK = random(1, 60, 200)
    bits_NK = to_bits(weight_NK)
    of_bits, of_floats = (quantize(device_of(2), [w_NK], *form) for w_NK in (bits_NK, from_bits(bits_NK)))
    assert np.array_equal(of_bits.buffer(), of_floats.buffer())
    half_NK = weight_NK.astype(np.float16)
    of_half, of_floats = (quantize(device_of(2), [w_NK], *form) for w_NK in (half_NK, half_NK.astype(np.float32)))
    assert np.array_equal(of_half.buffer(), of_floats.buffer())


@pytest.mark.parametrize("form", FORMATS)
def test_bias_old_value_norm_and_gate(device_of: DeviceOf, form: Format) -> None:
    x_TK, bias_N, old_TN, norm_K = random(2, 9, 165), random(3, 100), random(4, 9, 100), random(5, 165)
    weight = quantize(device_of(2), [random(1, 100, 165)], *form)
    plain_TN, out_TN = product(device_of(2), x_TK, weight), old_TN.copy()
    linear(device_of(2), x_TK, weight, out_TN, bias_N, accumulate=True)
    assert np.array_equal(out_TN, plain_TN + bias_N + old_TN)
    normed_TK = np.empty_like(x_TK)
    rms_norm(device_of(2), x_TK, norm_K, 1e-6, normed_TK)
    fused_TN = product(device_of(2), x_TK, weight, norm=(norm_K, 1e-6))
    assert np.array_equal(fused_TN, product(device_of(2), normed_TK, weight))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_row_poisons_itself_alone(device_of: DeviceOf, poison: float, form: Format) -> None:
    x_TK = random(2, 11, 165)
    weight = quantize(device_of(2), [random(1, 100, 165)], *form)
    clean_TN = product(device_of(2), x_TK, weight)
    x_TK[4, 164] = poison
    out_TN = product(device_of(2), x_TK, weight)
    others = np.arange(11) != 4
    assert np.array_equal(out_TN[others], clean_TN[others])
    assert not np.isfinite(out_TN[4]).any()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-37, 1e-20, 1e30])
def test_extreme_activations(device_of: DeviceOf, scale: float, form: Format) -> None:
    x_TK = (random(2, 3, 200) * np.float32(scale)).astype(np.float32)
    x_TK[1, :128] = 0
    weight = quantize(device_of(2), [random(1, 50, 200)], *form)
    assert_close(product(device_of(2), x_TK, weight), x_TK, unpack(device_of(2), weight))


@pytest.mark.parametrize("form", FORMATS)
def test_extreme_weights(device_of: DeviceOf, form: Format) -> None:
    weight_NK = random(1, 60, 300)
    weight_NK[3] = 0
    weight_NK[4, :128] = 0
    weight_NK[5] *= np.float32(1e-42)
    weight_NK[6] *= np.float32(1e15)
    weight_NK[7] = 0.25
    weight_NK[8] = -0.25
    dequantized_NK = unpack(device_of(2), quantize(device_of(2), [weight_NK], *form))
    assert np.array_equal(dequantized_NK, reference.quantize(weight_NK, *form))
    assert np.all(dequantized_NK[3] == 0)
    assert np.allclose(dequantized_NK[7:9], weight_NK[7:9], rtol=0.01)
    largest_N1 = np.abs(weight_NK).max(axis=1, keepdims=True)
    assert np.all(np.abs(dequantized_NK - weight_NK) <= largest_N1 * (0.004 if form.bits == 8 else 0.3) + 1e-36)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMATS)
def test_weights_that_are_no_numbers_are_refused(device_of: DeviceOf, form: Format, bad: float) -> None:
    weight_NK = random(1, 60, 300)
    weight_NK[59, 299] = bad
    with pytest.raises(ValueError, match="infinity or a NaN"):
        quantize(device_of(2), [weight_NK], *form)


def test_the_search_beats_the_plain_scale(device_of: DeviceOf) -> None:
    weight_NK = random(1, 96, 512)
    found_NK = unpack(device_of(2), quantize(device_of(2), [weight_NK], 4, 32))
    groups = weight_NK.reshape(96, 16, 32)
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)
    plain_NK = (np.clip(np.rint(groups * -8 / extreme), -8, 7) * extreme / -8).reshape(96, 512)
    squares = [float(np.square(w_NK - weight_NK).mean()) for w_NK in (found_NK, plain_NK)]
    assert squares[0] < 0.9 * squares[1]


@pytest.mark.parametrize("form", FORMATS)
def test_embed_gathers_the_rows_that_unpack_shows(device_of: DeviceOf, form: Format) -> None:
    weight = quantize(device_of(2), [random(1, 130, 172)], *form)
    ids_T = np.array([129, 0, 48, 47, 129], dtype=np.int32)
    out_TH = np.full((5, 172), np.nan, dtype=np.float32)
    embed(device_of(2), ids_T, weight, out_TH)
    assert np.array_equal(out_TH, unpack(device_of(2), weight)[ids_T])


@settings(deadline=None, max_examples=20)
@given(cuts=st.sets(st.integers(1, 99), max_size=6), form=st.sampled_from(FORMATS), threads=st.sampled_from([1, 2, 3]))
def test_a_prompt_in_chunks_has_the_bits_of_the_whole(
    device_of: DeviceOf, cuts: set[int], form: Format, threads: int
) -> None:
    x_TK = random(2, 100, 170)
    weight = quantize(device_of(1), [random(1, 120, 170)], *form)
    whole_TN = product(device_of(1), x_TK, weight)
    chunks = [product(device_of(threads), chunk_TK.copy(), weight) for chunk_TK in np.split(x_TK, sorted(cuts))]
    assert np.array_equal(np.concatenate(chunks), whole_TN)


@pytest.mark.parametrize("k", [20, 32, 128, 300])
@pytest.mark.parametrize("form", FORMATS)
def test_a_weight_survives_a_file(device_of: DeviceOf, form: Format, k: int, tmp_path: Path) -> None:
    weight = quantize(device_of(2), [random(1, 100, k)], *form)
    assert (weight.n, weight.k, weight.dtype) == (100, k, f"int{form.bits}")
    group_size = form.group_size or k
    assert weight.group_size == (min(group_size, k) if form.symmetric else group_size)
    assert weight.symmetric == form.symmetric
    buffer = weight.buffer()
    assert not buffer.flags.writeable
    assert buffer.nbytes == weight.nbytes
    path = tmp_path / "weight"
    path.write_bytes(buffer.tobytes())
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    again = from_buffer(weight.n, weight.k, weight.dtype, weight.group_size, weight.symmetric, mapped)
    del mapped
    x_TK = random(2, 5, k)
    assert np.array_equal(product(device_of(2), x_TK, again), product(device_of(2), x_TK, weight))
    del weight
    assert np.array_equal(buffer, again.buffer())


def test_what_does_not_fit_is_refused(device_of: DeviceOf) -> None:
    device, weight_NK = device_of(1), random(1, 10, 64)
    with pytest.raises(ValueError, match="bits must be 8 or 4"):
        quantize(device, [weight_NK], 5)
    for size in (0, 16, 100):
        with pytest.raises(ValueError, match="group_size must be"):
            quantize(device, [weight_NK], 4, size)
    for bits, size in ((8, 32), (4, None)):
        with pytest.raises(ValueError, match="asymmetric"):
            quantize(device, [weight_NK], bits, size, symmetric=False)
    with pytest.raises(TypeError, match="C-contiguous"):
        quantize(device, [weight_NK.T], 8)
    buffer = quantize(device, [weight_NK], 8).buffer()
    with pytest.raises(ValueError, match="length does not fit"):
        from_buffer(10, 65, "int8", 65, True, buffer)
    with pytest.raises(ValueError, match="multiple of 64"):
        from_buffer(10, 64, "int8", 64, True, np.concatenate([buffer, buffer])[1:][: len(buffer)])
    with pytest.raises(ValueError, match="dtype must be"):
        from_buffer(10, 64, "int2", 64, True, buffer)
    with pytest.raises(TypeError):
        from_buffer(10, 64, "int8", 64, True, buffer.astype(np.float32))
