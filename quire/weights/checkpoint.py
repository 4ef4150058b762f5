"""A model's weights: tensors by name out of one safetensors file or many, read where they lie.

Knows: files, names, shapes. Does not know: layers, the network, what is done with a tensor.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quire.errors import BrokenCheckpoint
from quire.typed_json import TypedJson, read_json
from quire.weights.safetensors import Tensor, TensorFile, open_tensor_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NUMPY_DTYPES: Mapping[str, npt.DTypeLike] = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}
MAX_NAMED = 10
# Buffers that old checkpoints carry and that are computed from the config anyway.
IGNORED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")

Array = npt.NDArray[np.uint16] | npt.NDArray[np.float16] | npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Memory-mapped tensors by name."""

    folder: Path
    tensors: Mapping[str, tuple[TensorFile, Tensor]]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Map model.safetensors, or the shards that model.safetensors.index.json names.

        Every header is checked against its file's size here. Raises `BrokenCheckpoint`.
        """
        if (folder / SINGLE).exists():
            files = [open_tensor_file(folder / SINGLE)]
            return cls(folder, _by_name(files))
        if (folder / INDEX).exists():
            return cls(folder, _sharded(folder, read_json(folder / INDEX)))
        raise BrokenCheckpoint(f"there are no weights in {folder}", got=_others(folder), allowed=f"{SINGLE} or {INDEX}")

    @property
    def num_bytes(self) -> int:
        """Size of all tensors in the files."""
        return sum(tensor.num_bytes for _, tensor in self.tensors.values())

    @property
    def files(self) -> tuple[TensorFile, ...]:
        """The mapped files, by name."""
        return tuple(file for _, file in sorted({file.name: file for file, _ in self.tensors.values()}.items()))

    @property
    def meant(self) -> list[str]:
        """Names of the tensors that mean something, sorted: all but buffers that are computed anyway."""
        return sorted(name for name in self.tensors if not IGNORED.search(name))

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    def size_of(self, name: str) -> int:
        """Bytes of a tensor in its file, 0 if there is none."""
        return self.tensors[name][1].num_bytes if name in self.tensors else 0

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor as a read-only view of the file: uint16 holds the bits of BF16; float16; float32.

        Raises `BrokenCheckpoint` where it is missing, of another shape, or in a number format that is not one of these.
        """
        problem = self.problem(name, shape)
        if problem is not None:
            raise BrokenCheckpoint(problem)
        file, tensor = self.tensors[name]
        dtype = np.dtype(NUMPY_DTYPES[tensor.dtype])
        view = np.frombuffer(file.data, dtype, tensor.num_bytes // dtype.itemsize, tensor.begin).reshape(shape)
        return view if view.flags.aligned else view.copy()

    def problem(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Why `take` would refuse, in a few words; None if it would not."""
        if name not in self.tensors:
            return f"{name} is missing"
        tensor = self.tensors[name][1]
        if tensor.dtype not in NUMPY_DTYPES:
            return f"{name} is stored as {tensor.dtype}, which is none of {', '.join(NUMPY_DTYPES)}"
        if tensor.shape != shape:
            return f"{name} has shape {list(tensor.shape)}, its config asks for {list(shape)}"
        return None

    def release(self, name: str) -> None:
        """Let the system drop the tensor's pages from our memory; a later `take` reads the file again."""
        file, tensor = self.tensors[name]
        begin = -(-tensor.begin // mmap.PAGESIZE) * mmap.PAGESIZE
        length = tensor.end - begin
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            file.data.madvise(mmap.MADV_DONTNEED, begin, length)

    def identity(self) -> dict[str, object]:
        """What tells this checkpoint from another, or from itself before a change: its files and its tensors."""
        files = sorted({file.name for file, _ in self.tensors.values()})
        stats = [(self.folder / name).stat() for name in files]
        tensors = sorted((name, each.dtype, each.shape, each.begin) for name, (_, each) in self.tensors.items())
        return {
            "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(files, stats, strict=True)],
            "tensors": hashlib.sha256(repr(tensors).encode()).hexdigest(),
        }

    def check(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """One `BrokenCheckpoint` that names what is missing, what does not fit, and what is left over."""
        problems = [problem for name, shape in wanted.items() if (problem := self.problem(name, shape)) is not None]
        left = [name for name in sorted(self.tensors) if name not in wanted and not IGNORED.search(name)]
        problems += [f"{name} belongs to no layer" for name in left]
        if problems:
            more = len(problems) - MAX_NAMED
            named = "; ".join(problems[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise BrokenCheckpoint(
                f"the weights in {self.folder} do not fit its config: {named}",
                hint="config.json and the weights must come from the same model.",
            )


def _by_name(files: list[TensorFile]) -> dict[str, tuple[TensorFile, Tensor]]:
    tensors: dict[str, tuple[TensorFile, Tensor]] = {}
    for file in files:
        for name, tensor in file.tensors.items():
            if name in tensors:
                raise BrokenCheckpoint(
                    f"the tensor {name} is in two files", got=f"{tensors[name][0].name}, {file.name}"
                )
            tensors[name] = (file, tensor)
    return tensors


def _sharded(folder: Path, index: TypedJson) -> dict[str, tuple[TensorFile, Tensor]]:
    weight_map = index.section("weight_map").values
    if not weight_map:
        raise index.missing("weight_map", "tensor names and their files")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise BrokenCheckpoint(
                f"{INDEX} points {name} at a file that cannot be",
                got=file,
                allowed="a .safetensors file in the same folder",
            )
    names = sorted({str(file) for file in weight_map.values()})
    absent = [name for name in names if not (folder / name).exists()]
    if absent:
        listed = ", ".join(absent[:MAX_NAMED])
        raise BrokenCheckpoint(
            f"{len(absent)} of {len(names)} files of the checkpoint are missing",
            got=listed,
            hint="Fetch the model again.",
        )
    tensors = _by_name([open_tensor_file(folder / name) for name in names])
    for name, file in weight_map.items():
        if name not in tensors or tensors[name][0].name != file:
            raise BrokenCheckpoint(f"{INDEX} says that {name} is in {file}, and it is not")
    return tensors


def _others(folder: Path) -> str:
    """What else lies in the folder, for the message of one who has other weights."""
    if not folder.is_dir():
        return "no such folder"
    found = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf", ".safetensors")
    )
    if any(Path(name).suffix in (".bin", ".pt", ".pth") for name in found):
        return f"{', '.join(found[:3])}: PyTorch's pickle files can run code and are never opened"
    return ", ".join(found[:3]) or "none"
