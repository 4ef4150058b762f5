"""The bytes of packed weights, pinned: files of them outlive a build.

When this fails on purpose, raise `PACKED_LAYOUT` and write the new digests down: older files are then quantized again.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from quire.ops.device import Device, available_isas
from quire.ops.linear import PACKED_LAYOUT, quantize, quantize_planes

PINNED = {
    (8, None, True): "101a048820fadf83",
    (8, 64, True): "7d69b3effd6fd585",
    (4, 32, True): "59687772550a8aa6",
    (4, 128, False): "2b5b0b431ac9b12d",
}


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("kind", PINNED, ids=str)
def test_a_layout_changes_only_with_its_number(kind: tuple[int, int | None, bool], isa: str) -> None:
    weight_NK = ((np.arange(50 * 150) * 37 % 509).astype(np.float32) - 254).reshape(50, 150) / 128
    with Device(1, isa) as device:
        digest = hashlib.sha256(quantize(device, [weight_NK], *kind).buffer().tobytes()).hexdigest()
    assert (PACKED_LAYOUT, digest[:16]) == (2, PINNED[kind])


@pytest.mark.parametrize("isa", available_isas())
def test_so_does_that_of_planes(isa: str) -> None:
    weight_NK = ((np.arange(50 * 150) * 37 % 509).astype(np.float32) - 254).reshape(50, 150) / 128
    with Device(1, isa) as device:
        digest = hashlib.sha256(quantize_planes(device, [weight_NK]).buffer().tobytes()).hexdigest()
    assert (PACKED_LAYOUT, digest[:16]) == (2, "6de26968816f4eae")
