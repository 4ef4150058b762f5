"""Scratch memory of a step: named float32 buffers that grow to the largest step and are then used again and again.

Knows: names and shapes. Does not know: which op writes what.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
ALIGNMENT_BYTES = 64  # a cache line, and one AVX-512 register
MAX_VIEWS = 8192  # about 1 MB of array headers; a server that saw every step size up to 1024 keeps them all


class Arena:
    """Hands out C-contiguous float32 views, 64-byte aligned, one buffer a name.

    A view stays valid until its name is asked for again; what it holds before it is written is undefined (with
    `poison` it is NaN, so that a test notices what an op left unwritten). A repeated shape costs one dict lookup and
    allocates nothing. Growing a buffer leaves old views alive and detached.
    """

    __slots__ = ("_buffers", "_views", "num_growths", "poisons")

    def __init__(self, poison: bool = False) -> None:
        self._buffers: dict[str, Float32] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Float32] = {}
        self.poisons = poison
        self.num_growths = 0  # buffers made so far: while it stays, every view of a name and shape is the same memory

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers (the system backs them with memory when they are first written)."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def view(self, name: str, shape: tuple[int, ...]) -> Float32:
        """The buffer `name` as an array of `shape`."""
        view = self._views.get((name, shape))
        if view is None:
            view = self._make(name, shape)
        if self.poisons:
            view.fill(np.nan)
        return view

    def again(self, name: str, shape: tuple[int, ...]) -> Float32:
        """What `view` handed out last, as it is: for who reads what somebody else has written."""
        view = self._views.get((name, shape))
        return self._make(name, shape) if view is None else view

    def _make(self, name: str, shape: tuple[int, ...]) -> Float32:
        size = int(np.prod(shape, dtype=np.int64))
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = _aligned(size)
            self.num_growths += 1
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        if len(self._views) >= MAX_VIEWS:
            self._views.clear()
        view = self._buffers[name][:size].reshape(shape)
        self._views[name, shape] = view
        return view


def _aligned(size: int) -> Float32:
    padding = ALIGNMENT_BYTES // 4
    raw = np.empty(size + padding, np.float32)
    skip = (-raw.ctypes.data % ALIGNMENT_BYTES) // 4
    return raw[skip : skip + size]
