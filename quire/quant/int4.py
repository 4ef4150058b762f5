"""Weights rounded to 4 bits while they are read.

Knows: the quantizing door of `ops.linear`. Does not know: models, files, where a part stands.
"""

from __future__ import annotations

from quire.ops.device import Device
from quire.precision import Precision
from quire.quant.rounded import Rounded


def make(device: Device, precision: Precision) -> Rounded:
    """w ~ scale * q with q in -8..7 (plus the group's offset, if asymmetric), one scale for each group of inputs."""
    return Rounded(device, precision, bits=4)
