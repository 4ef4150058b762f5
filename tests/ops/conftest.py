"""Fixtures of the op tests. Knows: devices of every instruction set this machine has. Does not know: any op."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from quire.ops.device import Device, available_isas

DeviceOf = Callable[[int], Device]

# `--hypothesis-profile emulated`: an emulated processor takes its time to make up examples too.
settings.register_profile("emulated", suppress_health_check=[HealthCheck.too_slow])


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--one-in N` runs every N-th test of each file: for machines, and emulators, that are slow."""
    parser.addoption("--one-in", type=int, default=1, metavar="N", help="run every N-th op test of each file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    step = config.getoption("--one-in", default=1)
    if step > 1:
        places: dict[Path, int] = {}
        kept, left_out = [], []
        for item in items:
            place = places[item.path] = places.get(item.path, -1) + 1
            (left_out if place % step else kept).append(item)
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


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
