"""quire's own file of packed weights: written once after quantizing, read by later starts in place of the checkpoint.

    0      prologue, 64 bytes: magic, then (little endian) u64 begin and u64 length of the index, u32 CRC of the index
    4096   the weights' bytes, each beginning at a multiple of 64
    end    the index: JSON {"identity": {...}, "weights": {key: [outputs, inputs, dtype, group size, symmetric, begin,
           length, [CRC of each CHUNK_BYTES]]}}

Knows: the file, and every check before a byte of it is used. Does not know: how a weight's bytes lie, who packs them.
"""

from __future__ import annotations

import fcntl
import glob
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quire.limits import MAX_PACKED_INDEX_BYTES

MAGIC = b"quire-w1"
PROLOGUE = struct.Struct("<8sQQI36x")
BODY_BEGIN, ALIGNMENT = 4096, 64
CHUNK_BYTES = 2 * 2**20  # read and checked at a time; large enough for a huge page, small enough to share among threads
HUGE_PAGE = 2 * 2**20

Bytes = Any  # a C-contiguous array of uint8
Identity = Mapping[str, Any]


class UnusableFile(Exception):
    """Why the file cannot stand in for the checkpoint, in a few words."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight and its bytes `begin:begin + length` of the file."""

    num_outputs: int
    num_inputs: int
    dtype: str
    group_size: int
    symmetric: bool
    begin: int
    length: int
    checksums: tuple[int, ...]


def read(
    path: Path, identity: Identity, num_threads: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, tuple[Entry, Bytes]]:
    """All weights, copied into huge pages by `num_threads` threads. Raises `UnusableFile`; FileNotFoundError or
    NotADirectoryError where there is none.

    Nothing in the file is trusted: its index is checked against its size before memory is taken, its bytes against
    their checksums. `progress` gets (bytes done, bytes in all).
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            entries = _index(file.fileno(), size, identity)
            held = _huge_pages(max((entry.begin + entry.length for entry in entries.values()), default=0))
            _fill(file.fileno(), held, entries, num_threads, progress)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as problem:
        raise UnusableFile(f"it cannot be read: {problem.strerror}") from None
    held.flags.writeable = False
    return {key: (entry, held[entry.begin : entry.begin + entry.length]) for key, entry in entries.items()}


def _index(file: int, size: int, identity: Identity) -> dict[str, Entry]:
    raw = os.pread(file, PROLOGUE.size, 0)
    if len(raw) < PROLOGUE.size or raw[: len(MAGIC)] != MAGIC:
        raise UnusableFile("it is no file of packed weights")
    _, begin, length, checksum = PROLOGUE.unpack(raw)
    if not (begin >= BODY_BEGIN and length <= MAX_PACKED_INDEX_BYTES and begin + length == size):
        raise UnusableFile("it is truncated or damaged")
    text = os.pread(file, length, begin)
    if len(text) != length or zlib.crc32(text) != checksum:
        raise UnusableFile("its index is damaged")
    try:
        index = json.loads(text)
        entries = {key: _entry(fields) for key, fields in index["weights"].items()}
        found = index["identity"]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise UnusableFile("its index is damaged") from None
    changed = [name for name in identity if not isinstance(found, dict) or found.get(name) != identity[name]]
    if changed:
        raise UnusableFile(f"it was made from something else: {', '.join(changed)} changed")
    if not all(_fits(entry, begin) for entry in entries.values()):
        raise UnusableFile("its index is damaged")
    return entries


def _entry(fields: Any) -> Entry:
    outputs, inputs, dtype, group_size, symmetric, begin, length, checksums = fields
    return Entry(outputs, inputs, dtype, group_size, symmetric, begin, length, tuple(checksums))


def _fits(entry: Entry, end: int) -> bool:
    """Whether an entry's numbers are numbers, and its bytes lie in the body."""
    numbers = (entry.num_outputs, entry.num_inputs, entry.group_size, entry.begin, entry.length, *entry.checksums)
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        return False
    if type(entry.dtype) is not str or type(entry.symmetric) is not bool:
        return False
    inside = entry.begin >= BODY_BEGIN and entry.begin % ALIGNMENT == 0 and entry.begin + entry.length <= end
    return inside and len(entry.checksums) == -(-entry.length // CHUNK_BYTES)


def _huge_pages(size: int) -> Bytes:
    """Memory of our own that begins at a huge page: a decode step reads every weight, and small pages slow it down."""
    pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # advice only: a refusal costs speed, not results
            pages.madvise(mmap.MADV_HUGEPAGE)
    held = np.frombuffer(pages, np.uint8)
    skip = -held.ctypes.data % HUGE_PAGE
    return held[skip : skip + size]


def _fill(
    file: int,
    held: Bytes,
    entries: Mapping[str, Entry],
    num_threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    chunks = [
        (begin, min(begin + CHUNK_BYTES, entry.begin + entry.length), checksum)
        for entry in entries.values()
        for begin, checksum in zip(
            range(entry.begin, entry.begin + entry.length, CHUNK_BYTES), entry.checksums, strict=True
        )
    ]
    total, done = sum(end - begin for begin, end, _ in chunks), 0
    with ThreadPoolExecutor(num_threads) as pool:
        for count in pool.map(lambda chunk: _read_chunk(file, held, *chunk), chunks):
            done += count
            if progress is not None:
                progress(done, total)


def _read_chunk(file: int, held: Bytes, begin: int, end: int, checksum: int) -> int:
    place = memoryview(held[begin:end])
    count = 0
    while count < len(place):
        got = os.preadv(file, [place[count:]], begin + count)
        if got == 0:
            raise UnusableFile("it is truncated")
        count += got
    if zlib.crc32(place) != checksum:
        raise UnusableFile("its weights are damaged")
    return count


class Writer:
    """A new file beside `path` that takes its place when it is whole. Methods raise OSError; `abandon` never does."""

    def __init__(self, path: Path, identity: Identity) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        self._path, self._part, self._file = path, Path(name), os.fdopen(handle, "wb", buffering=0)
        _lock(handle)
        self._identity, self._end = identity, BODY_BEGIN
        self._entries: dict[str, list[Any]] = {}

    def add(self, key: str, shape: tuple[int, int], stored: tuple[str, int, bool], weight: Bytes) -> None:
        """`shape` is (outputs, inputs), `stored` is (dtype, group size, symmetric), as in `Entry`."""
        begin = -(-self._end // ALIGNMENT) * ALIGNMENT
        view = memoryview(weight)
        checksums = [zlib.crc32(view[first : first + CHUNK_BYTES]) for first in range(0, len(view), CHUNK_BYTES)]
        self._put(view, begin)
        self._entries[key] = [*shape, *stored, begin, len(view), checksums]
        self._end = begin + len(view)

    def finish(self) -> int:
        """Write the index, then the prologue, and rename; the file's size in bytes."""
        index = json.dumps({"identity": dict(self._identity), "weights": self._entries}).encode()
        self._put(memoryview(index), self._end)
        prologue = PROLOGUE.pack(MAGIC, self._end, len(index), zlib.crc32(index))
        self._put(memoryview(prologue), 0)
        self._file.close()
        self._part.replace(self._path)
        return self._end + len(index)

    def abandon(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _put(self, data: memoryview, begin: int) -> None:
        while data:
            count = os.pwrite(self._file.fileno(), data, begin)
            data, begin = data[count:], begin + count


def _lock(file: int) -> bool:
    """Whether the file is now this process's alone; a process that is killed lets go of its locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # someone else's, or a file system without locks
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what writers of `path` that were killed have left."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), part.open("rb") as file:
            if _lock(file.fileno()):
                part.unlink()
