"""Fixtures of the torch backend's tests. Knows: torch on the CPU. Does not know: any GPU."""

from __future__ import annotations

import pytest

from quire.ops.device import Device
from quire.ops.open_device import open_device


@pytest.fixture(scope="session")
def torch_device() -> Device:
    """The plain torch ops on the CPU, in float32."""
    pytest.importorskip("torch")
    return open_device("torch:cpu", threads=1, dtype="float32")
