"""Copies between host and device that nobody waits for until he must.

    upload     arrays -> one pinned buffer -> one copy -> views of it on the device
    Inbox      the same, to memory that stays where it is
    Copyback   tensors -> one copy -> pinned memory, ready when its event is

Knows: pinned memory, events. Does not know: what is copied. On a CPU a copy is a copy and an event has always happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

ALIGNMENT_BYTES = 16
NUM_BUFFERS = 4  # uploads that may be under way at once
FIRST_BYTES = 2**16


class Mark(Protocol):
    """A point in a row of work on the device."""

    def wait(self) -> None:
        """Return when all work before it is done."""
        ...


class Lanes(Protocol):
    """What a device offers for copies."""

    device: torch.device

    def host_buffer(self, num_bytes: int) -> Tensor:
        """uint8 on the host, fit for copies that do not wait."""
        ...

    def mark(self) -> Mark:
        """A mark after all work given to the device so far."""
        ...


class Reached:
    """A mark that lies in the past."""

    def wait(self) -> None:
        """Nothing to wait for."""


class PlainLanes:
    """Copies of a device that computes as it is told: the CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def host_buffer(self, num_bytes: int) -> Tensor:
        """Ordinary memory."""
        return torch.empty(num_bytes, dtype=torch.uint8)

    def mark(self) -> Mark:
        """Everything has happened already."""
        return Reached()


class CudaLanes:
    """Copies on the current CUDA stream, from and to pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def host_buffer(self, num_bytes: int) -> Tensor:
        """Pinned memory."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def mark(self) -> Mark:
        """An event on the current stream."""
        return _CudaMark(self.device)


class _CudaMark:
    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Block this thread alone."""
        self._event.synchronize()


def lanes_of(device: torch.device) -> Lanes:
    """The lanes of a CPU or a CUDA device."""
    return CudaLanes(device) if device.type == "cuda" else PlainLanes(device)


class Uploads:
    """Host to device. Buffers are used in turn; one is written again only after its last copy has ended."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._buffers = [lanes.host_buffer(FIRST_BYTES) for _ in range(NUM_BUFFERS)]
        self._marks: list[Mark] = [Reached() for _ in range(NUM_BUFFERS)]
        self._turn = 0

    def upload(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[Tensor]:
        """The arrays on the device, in one copy; they may be changed as soon as this returns."""
        starts, num_bytes = _places([array.nbytes for array in arrays])
        there = torch.empty(num_bytes, dtype=torch.uint8, device=self._lanes.device)
        self.send(arrays, starts, there)
        return [
            there[start : start + array.nbytes].view(_TORCH[array.dtype.str[1:]]).view(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]

    def send(self, arrays: Sequence[np.ndarray[Any, Any]], starts: Sequence[int], there: Tensor) -> None:
        """The same to the bytes `there`, each array at its start; what lies between is overwritten with anything."""
        num_bytes = there.numel()
        turn = self._turn = (self._turn + 1) % NUM_BUFFERS
        self._marks[turn].wait()
        if self._buffers[turn].numel() < num_bytes:
            self._buffers[turn] = self._lanes.host_buffer(2 * num_bytes)
        host = self._buffers[turn].numpy()
        for array, start in zip(arrays, starts, strict=True):
            host[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        there.copy_(self._buffers[turn][:num_bytes], non_blocking=True)
        self._marks[turn] = self._lanes.mark()


class Inbox:
    """int32 tensors of fixed shapes at fixed addresses, filled in one copy: inputs of launches that are recorded."""

    def __init__(self, lanes: Lanes, uploads: Uploads, shapes: Sequence[tuple[int, ...]]) -> None:
        sizes = [4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        self._starts, num_bytes = _places(sizes)
        self._uploads = uploads
        self._there = torch.zeros(num_bytes, dtype=torch.uint8, device=lanes.device)
        self.tensors = [
            self._there[start : start + size].view(torch.int32).view(shape)
            for shape, start, size in zip(shapes, self._starts, sizes, strict=True)
        ]

    def fill(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        """int32 arrays of these shapes; whatever was ordered before still finds what stood there."""
        if [array.shape for array in arrays] != [tuple(tensor.shape) for tensor in self.tensors]:
            raise ValueError(f"arrays of other shapes: {[array.shape for array in arrays]}")
        self._uploads.send(arrays, self._starts, self._there)


class Copyback:
    """Device to host: tensors that lie in one piece, copied together and looked at later."""

    def __init__(self, lanes: Lanes, shapes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> None:
        """Room on both sides for tensors of these shapes and types; `tensors` are the device's."""
        sizes = [int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in shapes]
        starts, num_bytes = _places(sizes)
        self._lanes = lanes
        self._there = torch.zeros(num_bytes, dtype=torch.uint8, device=lanes.device)
        self._here = lanes.host_buffer(num_bytes)
        self._mark: Mark = Reached()
        self.tensors, self._arrays = [], []
        for (shape, dtype), start, size in zip(shapes, starts, sizes, strict=True):
            self.tensors.append(self._there[start : start + size].view(dtype).view(shape))
            self._arrays.append(self._here[start : start + size].view(dtype).view(shape).numpy())

    def begin(self) -> None:
        """Order the copy of what the tensors will hold once the work given so far is done."""
        self._here.copy_(self._there, non_blocking=True)
        self._mark = self._lanes.mark()

    def wait(self) -> list[np.ndarray[Any, Any]]:
        """The tensors as arrays, good until the next `begin`."""
        self._mark.wait()
        return self._arrays


_TORCH = {
    "i4": torch.int32,
    "i8": torch.int64,
    "f4": torch.float32,
    "f8": torch.float64,
    "u1": torch.uint8,
    "u4": torch.int32,
}


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each piece begins, and the bytes of all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return starts, end
