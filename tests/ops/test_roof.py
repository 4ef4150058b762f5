"""The probes of the roof do the work that they count, and refuse what they cannot do. Speed is not tested."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quire.ops import roof
from quire.ops.device import Device

DeviceOf = Callable[[int], Device]


@pytest.mark.parametrize("num_bytes", [0, 1, 63, 64, 65, 65536, 65536 * 3 + 7])
@pytest.mark.parametrize("ahead", roof.PREFETCH_BYTES)
def test_reads_buffers_of_any_size(device_of: DeviceOf, num_bytes: int, ahead: int) -> None:
    data_B = np.arange(num_bytes + 1, dtype=np.uint8)[1:]  # not aligned
    roof.read_all(device_of(2), data_B, ahead)
    assert np.array_equal(data_B, np.arange(num_bytes + 1, dtype=np.uint8)[1:])


@pytest.mark.parametrize("dtype", roof.DTYPES)
def test_counts_in_proportion_to_rounds_and_threads(device_of: DeviceOf, dtype: str) -> None:
    once = roof.multiply(device_of(1), dtype, 10)
    assert once > 0
    assert roof.multiply(device_of(1), dtype, 30) == 3 * once
    assert roof.multiply(device_of(2), dtype, 10) == 2 * once
    assert roof.instruction(device_of(1), dtype)


def test_refuses_what_it_cannot_do(device_of: DeviceOf) -> None:
    with pytest.raises(ValueError, match="dtype must be"):
        roof.multiply(device_of(1), "int3", 1)
    with pytest.raises(ValueError, match="rounds must be"):
        roof.multiply(device_of(1), "int8", 0)
    with pytest.raises(ValueError, match="ahead must not"):
        roof.read_all(device_of(1), np.zeros(4, np.uint8), -1)
    with pytest.raises(TypeError):
        roof.read_all(device_of(1), np.zeros(4, np.float32))
