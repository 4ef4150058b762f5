"""What AMX tiles must share with the vectors beside them. Knows: doors, both instruction sets. Does not know: layouts.

That amx agrees with the reference, alone and in company, is in the tests of each op, which run for every instruction
set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from quire.ops.device import Device, available_isas
from quire.ops.linear import linear, pack, quantize

pytestmark = pytest.mark.skipif("amx" not in available_isas(), reason="this machine has no AMX tiles")

FORMATS = [
    (8, None, True), (8, 128, True), (8, 64, True), (8, 32, True),
    (4, None, True), (4, 128, True), (4, 64, True), (4, 32, True), (4, 128, False), (4, 32, False),
]  # fmt: skip


@pytest.fixture(scope="module")
def devices() -> Iterator[dict[str, Device]]:
    made = {isa: Device(2, isa) for isa in ("avx512", "amx")}
    yield made
    for device in made.values():
        device.close()


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(device: Device, x_TK: Any, weight: Any, **options: Any) -> Any:
    out_TN = np.full((len(x_TK), weight.n), 0.5, dtype=np.float32)
    linear(device, x_TK, weight, out_TN, **options)
    return out_TN


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", [9, 16, 31, 64, 65, 200])
def test_quantized_products_have_the_bits_of_avx512(
    devices: dict[str, Device], rows: int, form: tuple[int, int | None, bool]
) -> None:
    """Their sums are integers, so tiles may add them in any order: an answer is the same on both."""
    for n, k in ((100, 172), (49, 1024), (200, 2200)):
        weight = quantize(devices["avx512"], [random(1, n, k) * 0.02], *form)
        x_TK, bias_N = random(2, rows, k), random(3, n)
        one, other = (product(devices[isa], x_TK, weight, bias_N=bias_N, accumulate=True) for isa in ("avx512", "amx"))
        assert np.array_equal(one.view(np.uint32), other.view(np.uint32)), (n, k)


@pytest.mark.parametrize("k", [1024, 1090, 3072])
def test_rows_of_several_tasks_have_their_own_bits(devices: dict[str, Device], k: int) -> None:
    """So many rows that they do not stay in L2 together."""
    weight = pack(devices["amx"], [random(4, 100, k) * 0.02], "bfloat16")
    x_TK = random(5, 900, k)
    whole_TN = product(devices["amx"], x_TK, weight)
    for first, count in ((0, 1), (127, 2), (128, 17), (383, 33), (511, 1), (640, 70), (899, 1)):
        part_TN = product(devices["amx"], x_TK[first : first + count].copy(), weight)
        assert np.array_equal(part_TN, whole_TN[first : first + count]), (first, count)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_stays_in_its_column(devices: dict[str, Device], value: float) -> None:
    """What lies behind the last k of a panel, in the next one, is not multiplied: not even by zero."""
    weight_NK = random(6, 144, 40) * 0.02
    weight_NK[48:96] = value
    x_TK = random(7, 33, 40)
    out_TN = product(devices["amx"], x_TK, pack(devices["amx"], [weight_NK], "bfloat16"))
    assert np.all(np.isfinite(out_TN[:, :48]))
    assert np.all(np.isfinite(out_TN[:, 96:]))
    assert not np.any(np.isfinite(out_TN[:, 48:96]))
