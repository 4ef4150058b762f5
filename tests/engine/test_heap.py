"""Freed memory goes back to the system. Knows: /proc, the C library. Does not know: Python's own pools."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from quire.engine.heap import give_back

NUM_PIECES, PIECE_BYTES = 40_000, 1000


def resident_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_what_was_freed_below_something_that_stays_is_given_back() -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("the C library has no malloc_trim")
        return
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    pieces = [library.malloc(PIECE_BYTES) for _ in range(NUM_PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE_BYTES)
    for piece in pieces[:-1]:
        library.free(piece)
    kept = resident_bytes()
    assert give_back()
    assert resident_bytes() < kept - NUM_PIECES * PIECE_BYTES // 2
    library.free(pieces[-1])
