"""Fixtures of the op tests. Knows: devices of every instruction set this machine has. Does not know: any op."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from quire.ops.device import Device, available_isas

DeviceOf = Callable[[int], Device]


@pytest.fixture(params=available_isas(), scope="module")
def device_of(request: pytest.FixtureRequest) -> Iterator[DeviceOf]:
    """threads -> a Device of one instruction set; the test runs once for each that this machine has."""
    devices: dict[int, Device] = {}

    def device_of(threads: int) -> Device:
        if threads not in devices:
            devices[threads] = Device(threads, request.param)
        return devices[threads]

    yield device_of
    for device in devices.values():
        device.close()
