"""Scratch memory of a step on a torch device, with the rules of `ops/arena.py`.

Knows: names, shapes, and which names are float32 whatever the activations are. Does not know: which op writes what.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WIDE = frozenset({"logits"})
MAX_VIEWS = 8192


class TorchArena:
    """Contiguous views, one buffer a name; see `ops.arena.Arena`. `num_growths` stays while all views stay valid."""

    __slots__ = ("_buffers", "_device", "_dtype", "_views", "num_growths", "poisons")

    def __init__(self, device: torch.device, dtype: torch.dtype, poison: bool = False) -> None:
        self._device, self._dtype, self.poisons = device, dtype, poison
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.num_growths = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    def view(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The buffer `name` as a tensor of `shape`."""
        view = self._views.get((name, shape))
        if view is None:
            view = self._make(name, shape)
        if self.poisons:
            view.fill_(torch.nan)
        return view

    def _make(self, name: str, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            dtype = torch.float32 if name in WIDE else self._dtype
            self._buffers.pop(name, None)  # its memory first, so that growing never holds both
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
            self._buffers[name] = torch.empty(size, dtype=dtype, device=self._device)
            self.num_growths += 1
        if len(self._views) >= MAX_VIEWS:
            self._views.clear()
        view = self._buffers[name][:size].view(shape)
        self._views[name, shape] = view
        return view
