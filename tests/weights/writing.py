"""Safetensors files written by hand, so that each rule can be broken alone.

Knows: the format's layout. Does not know: the reader.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np


def entry(array: np.ndarray, begin: int, dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, begin + array.nbytes]}


def header_of(tensors: dict[str, tuple[str, np.ndarray]]) -> tuple[dict[str, Any], bytes]:
    """The header as a dict and the bytes that follow it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        header[name] = entry(array, len(data), dtype)
        data += array.tobytes()
    return header, data


def encode(header: Any, data: bytes) -> bytes:
    """A whole file; a header given as a dict is padded to 8 bytes with spaces, as the format asks writers to."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if not isinstance(header, bytes):
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    path.write_bytes(encode(*header_of(tensors)))
    return path
