"""The safetensors format: an 8-byte length, a JSON header, the tensors' bytes.

Knows: the header and every rule that it must keep before a view is made. Does not know: what the tensors are for.
Source of the rules: https://github.com/huggingface/safetensors (format section of its README). Python's integers do not
overflow, so every size here is checked exactly.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from quire.errors import BrokenCheckpoint
from quire.limits import MAX_TENSOR_HEADER_BYTES
from quire.typed_json import parse_object

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header; the bytes are `begin:end` of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells a file from another, or from itself before it was written to: inode, size in bytes, times in ns.

    Whoever writes to a file can set its modification time back, but not the time of its last change.
    """

    device: int
    inode: int
    num_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileStamp:
        """The stamp in what the system says of a file."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A memory-mapped file whose header has been checked against its size; `stamp` is that of the mapped file."""

    name: str
    tensors: dict[str, Tensor]
    data: mmap.mmap
    stamp: FileStamp


def open_tensor_file(path: Path) -> TensorFile:
    """Map `path` read-only. Raises `BrokenCheckpoint` for anything that is not a whole safetensors file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise BrokenCheckpoint(f"{path.name} is truncated", got=f"{size} bytes", allowed="8 or more")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            stamp = FileStamp.of(os.fstat(file.fileno()))
    except FileNotFoundError:
        raise BrokenCheckpoint(f"there is no {path.name} in {path.parent}") from None
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read", got=error.strerror) from None
    header, begin = _header(data, len(data), path.name)
    return TensorFile(path.name, parse_header(header, begin, len(data), path.name), data, stamp)


def _header(data: mmap.mmap, size: int, name: str) -> tuple[bytes, int]:
    (length,) = struct.unpack("<Q", data[:8])
    if length > MAX_TENSOR_HEADER_BYTES:
        raise BrokenCheckpoint(
            f"{name} is not a safetensors file, or it is broken",
            got=f"a header of {length} bytes",
            allowed=f"at most {MAX_TENSOR_HEADER_BYTES}",
        )
    if 8 + length > size:
        raise BrokenCheckpoint(
            f"{name} is truncated inside its header", got=f"{size} bytes", allowed=f"at least {8 + length}"
        )
    return data[8 : 8 + length], 8 + length


def parse_header(header: bytes, data_begin: int, file_size: int, name: str) -> dict[str, Tensor]:
    """Tensors by name. They must lie side by side from `data_begin` to `file_size`, without holes or overlaps."""
    tensors = {
        key: _tensor(key, entry, data_begin, name)
        for key, entry in parse_object(header, f"the header of {name}").items()
        if key != "__metadata__"
    }
    position = data_begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != position:
            raise BrokenCheckpoint(
                f"the tensor {tensor.name} in {name} does not begin where the one before it ends",
                got=f"byte {tensor.begin - data_begin}",
                allowed=f"byte {position - data_begin}",
            )
        position = tensor.end
    if position > file_size:
        raise BrokenCheckpoint(f"{name} is truncated", got=f"{file_size} bytes", allowed=f"{position} bytes")
    if position < file_size:
        raise BrokenCheckpoint(
            f"{name} has bytes that belong to no tensor", got=f"{file_size} bytes", allowed=f"{position} bytes"
        )
    return tensors


def _tensor(name: str, entry: object, data_begin: int, file: str) -> Tensor:
    where = f"the tensor {name} in {file}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BrokenCheckpoint(f"{where} is described wrongly", got=entry, allowed="dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise BrokenCheckpoint(f"{where} has an unknown number format", got=dtype, allowed=", ".join(DTYPE_BITS))
    shape, offsets = _sizes(entry["shape"]), _sizes(entry["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BrokenCheckpoint(
            f"{where} has a shape or offsets that make no sense",
            got=f"shape {entry['shape']}, offsets {entry['data_offsets']}",
            allowed="lists of sizes, and two ascending offsets",
        )
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise BrokenCheckpoint(
            f"{where} does not fill its bytes",
            got=f"{offsets[1] - offsets[0]} bytes",
            allowed=f"{-(-bits // 8)} for {dtype} of shape {list(shape)}",
        )
    return Tensor(name, dtype, shape, data_begin + offsets[0], data_begin + offsets[1])


def _sizes(value: object) -> tuple[int, ...] | None:
    """A short list of sizes below 2^63 as a tuple, None if it is anything else."""
    if not isinstance(value, list) or len(value) > 16:
        return None
    good = all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in value)
    return tuple(value) if good else None
