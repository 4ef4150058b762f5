"""Arrays of a checkpoint on their way to the device: through two pinned buffers in turn, one filled while the other
one is copied.

Knows: NumPy arrays as the checkpoint maps them. Does not know: what they are rounded to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from quire.kernels.torch.lanes import Lanes, Mark, Reached

CHUNK_BYTES = 64 * 2**20
_TORCH = {"u2": torch.bfloat16, "f2": torch.float16, "f4": torch.float32}


class Loading:
    """Buffers are made when the first array comes and kept while the model loads."""

    def __init__(self, lanes: Lanes, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._lanes, self._chunk_bytes = lanes, chunk_bytes
        self._buffers: list[Tensor] = []
        self._marks: list[Mark] = [Reached(), Reached()]
        self._turn = 0

    def load(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor of the same numbers and type: float32, float16, or bfloat16 for uint16 that holds its bits.

        Raises TypeError for another type.
        """
        kind = array.dtype.str[1:]
        if kind not in _TORCH:
            raise TypeError(f"a weight is float32, float16 or the bits of bfloat16 in uint16, not {array.dtype}")
        there = torch.empty(array.shape, dtype=_TORCH[kind], device=self._lanes.device)
        source, target = np.ascontiguousarray(array).reshape(-1).view(np.uint8), there.view(-1).view(torch.uint8)
        for first in range(0, len(source), self._chunk_bytes):
            self._send(source[first : first + self._chunk_bytes], target[first : first + self._chunk_bytes])
        return there

    def release(self) -> None:
        """Give the buffers back."""
        for mark in self._marks:
            mark.wait()
        self._buffers = []

    def _send(self, source: np.ndarray[Any, Any], target: Tensor) -> None:
        if not self._buffers:
            self._buffers = [self._lanes.host_buffer(self._chunk_bytes) for _ in range(2)]
        turn = self._turn = 1 - self._turn
        self._marks[turn].wait()
        host = self._buffers[turn][: len(source)]
        host.numpy()[:] = source
        target.copy_(host, non_blocking=True)
        self._marks[turn] = self._lanes.mark()
