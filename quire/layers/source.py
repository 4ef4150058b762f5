"""Where layers get their weights: first a list of what they want, then the weights themselves.

Layers are built twice by the same code: against `Inventory`, which only writes down names and shapes, so that
everything that does not fit is named at once before a byte is read; then against `Loader`, which reads.

Knows: checkpoints and the order of reading. Does not know: which layer asks, or how a format holds a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quire.errors import BrokenCheckpoint
from quire.quant import WeightFormat
from quire.weights.checkpoint import Array, Checkpoint

Float32 = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
CHUNK_ROWS = 4096  # rows compared at a time: bounds the comparison's own memory


class Source(Protocol):
    """What a layer may ask for while it is built.

    `format` is that of the decoder's blocks, `head_format` that of the embedding and the head.
    """

    format: WeightFormat
    head_format: WeightFormat

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor of this name."""
        ...

    def matrix(self, format: WeightFormat, names: Sequence[str], num_outputs: Sequence[int], num_inputs: int) -> Any:
        """The weight of a linear layer, modules `names` joined along their outputs, as `format` holds it."""
        ...

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Float32:
        """Tensors of one dimension, joined, in float32."""
        ...

    def same(self, name: str, other: str, shape: tuple[int, ...]) -> None:
        """Two tensors that must be equal, since only `other` is used."""
        ...


class Inventory:
    """Writes down what is asked for; what it hands out is empty."""

    __slots__ = ("checkpoint", "format", "head_format", "wanted")

    def __init__(self, checkpoint: Checkpoint, format: WeightFormat, head_format: WeightFormat) -> None:
        self.checkpoint, self.format, self.head_format = checkpoint, format, head_format
        self.wanted: dict[str, tuple[int, ...]] = {}

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor of this name."""
        return self.checkpoint.has(name)

    def matrix(self, format: WeightFormat, names: Sequence[str], num_outputs: Sequence[int], num_inputs: int) -> Any:
        """Notes the tensors that the format would read."""
        for name, size in zip(names, num_outputs, strict=True):
            self.wanted.update(format.wanted(name, size, num_inputs))

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Float32:
        """Notes the names."""
        self.wanted.update((name, (size,)) for name, size in zip(names, sizes, strict=True))
        return np.zeros(0, np.float32)

    def same(self, name: str, other: str, shape: tuple[int, ...]) -> None:
        """Notes both."""
        self.wanted.update({name: shape, other: shape})


class Kept(Protocol):
    """Packed weights from an earlier start, or a place to keep this one's for a later start."""

    def get(self, key: str) -> Any | None:
        """The weight kept under `key`; None if the checkpoint must be read."""
        ...

    def put(self, key: str, weight: Any) -> None:
        """Keep `weight`, if this is a place to keep weights in."""
        ...


class Loader:
    """Reads, packs, lets go of the file's pages, and reports progress in bytes of the checkpoint."""

    __slots__ = ("_done", "_kept", "_progress", "_put", "_total", "checkpoint", "format", "head_format")

    def __init__(
        self,
        checkpoint: Checkpoint,
        format: WeightFormat,
        head_format: WeightFormat,
        progress: Progress | None = None,
        kept: Kept | None = None,
        put: Callable[[Any], Any] | None = None,
    ) -> None:
        """`put` takes a vector to where the ops read it; without, NumPy arrays are handed out."""
        self.checkpoint, self.format, self.head_format = checkpoint, format, head_format
        self._put = put
        self._progress, self._kept, self._done, self._total = progress, kept, 0, checkpoint.num_bytes

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor of this name."""
        return self.checkpoint.has(name)

    def matrix(self, format: WeightFormat, names: Sequence[str], num_outputs: Sequence[int], num_inputs: int) -> Any:
        """The packed weight; peak memory is what is packed so far and the pages of this one."""
        wanted = [format.wanted(name, size, num_inputs) for name, size in zip(names, num_outputs, strict=True)]
        key = "+".join(name for part in wanted for name in part)
        weight = self._kept.get(key) if self._kept is not None else None
        if weight is None:
            weight = format.hold([{name: self.checkpoint.take(name, part[name]) for name in part} for part in wanted])
            if self._kept is not None:
                self._kept.put(key, weight)
        self._finish([name for part in wanted for name in part])
        return weight

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Float32:
        """The joined tensors, copied out of the file."""
        joined = np.concatenate(
            [to_float32(self.checkpoint.take(name, (size,))) for name, size in zip(names, sizes, strict=True)]
        )
        self._finish(names)
        return joined if self._put is None else self._put(joined)

    def same(self, name: str, other: str, shape: tuple[int, ...]) -> None:
        """Compares bit by bit. Raises `BrokenCheckpoint`."""
        one, two = self.checkpoint.take(name, shape), self.checkpoint.take(other, shape)
        equal = one.dtype == two.dtype and all(
            one[row : row + CHUNK_ROWS].tobytes() == two[row : row + CHUNK_ROWS].tobytes()
            for row in range(0, shape[0], CHUNK_ROWS)
        )
        if not equal:
            raise BrokenCheckpoint(
                f"config.json ties {name} to {other}, and the checkpoint holds two different tensors",
                hint="Set tie_word_embeddings to false in config.json if both are meant.",
            )
        self._finish([name])

    def _finish(self, names: Sequence[str]) -> None:
        for name in names:
            self.checkpoint.release(name)
            self._done += self.checkpoint.size_of(name)
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def to_float32(array: Array) -> Float32:
    """Exact: uint16 holds the upper halves of float32 numbers, float16 widens."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)
