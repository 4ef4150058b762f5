"""Folders that are full or cannot be written, and models that are not what they were.

Knows: mounts, files, safetensors' layout. Does not know: who reads them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import quire
from chaos.case import Skipped

BUNDLED = Path(quire.__file__).resolve().parent / "bundled"
WEIGHTS = "model.safetensors"


@contextlib.contextmanager
def tmpfs(num_bytes: int, read_only: bool = False) -> Iterator[Path]:
    """A file system of its own with so much room. Raises `Skipped` where this user may not mount."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        options = f"size={num_bytes}" + (",ro" if read_only else "")
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "quire-chaos", name], capture_output=True, check=False
        )
        if made.returncode:
            raise Skipped(f"no tmpfs may be mounted: {made.stderr.decode().strip()[:100]}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=False)


@contextlib.contextmanager
def little_room(num_bytes: int) -> Iterator[tuple[Path, Callable[[], None] | None, str]]:
    """A folder where no more than this can be written, and what has to be done in the writer's process; and how."""
    try:
        with tmpfs(num_bytes) as folder:
            yield folder, None, "tmpfs"
    except Skipped:
        with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:

            def limit() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

            yield Path(name), limit, "RLIMIT_FSIZE"


@contextlib.contextmanager
def model() -> Iterator[Path]:
    """A copy of the bundled model, to be spoilt."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        folder = Path(name) / "spoilt-mini"
        shutil.copytree(BUNDLED, folder)
        yield folder


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its data begin."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size)), 8 + size


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The same data under a changed header."""
    header, start = header_of(path)
    data = path.read_bytes()[start:]
    changed = change(header)
    text = json.dumps(header if changed is None else changed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def fill(path: Path, name_part: str, pattern: bytes) -> str:
    """Write a bit pattern over all of the first tensor whose name holds `name_part`; its name."""
    header, start = header_of(path)
    name = next(each for each in sorted(header) if name_part in each)
    begin, end = header[name]["data_offsets"]
    with path.open("r+b") as file:
        file.seek(start + begin)
        file.write(pattern * ((end - begin) // len(pattern)))
    return name


def large_model(folder: Path, num_bytes: int) -> None:
    """The bundled model with so wide a vocabulary that its weights take about this much; the words are the same."""
    shutil.copytree(BUNDLED, folder)
    path = folder / WEIGHTS
    header, start = header_of(path)
    data = path.read_bytes()[start:]
    config = json.loads((folder / "config.json").read_text())
    width = config["hidden_size"]
    for name in list(header):
        shape = header[name].get("shape") if name != "__metadata__" else None
        if shape is not None and shape[0] == config["vocab_size"] and shape[-1] == width and len(shape) == 2:
            rows = num_bytes // (2 * width)
            begin, end = header[name]["data_offsets"]
            old = np.frombuffer(data[begin:end], np.uint8)
            new = np.zeros(rows * width * 2, np.uint8)
            new[: old.size] = old
            header[name] = {
                "dtype": header[name]["dtype"],
                "shape": [rows, width],
                "data_offsets": [len(data), len(data) + new.size],
            }
            data += new.tobytes()
            config["vocab_size"] = rows
            break
    (folder / "config.json").write_text(json.dumps(config))
    _write_packed(path, header, data)


def _write_packed(path: Path, header: dict[str, Any], data: bytes) -> None:
    """Tensors one after another without the holes that moving one leaves."""
    parts, at, packed = [], 0, {}
    for name, entry in header.items():
        if name == "__metadata__":
            packed[name] = entry
            continue
        begin, end = entry["data_offsets"]
        packed[name] = {**entry, "data_offsets": [at, at + end - begin]}
        parts.append(data[begin:end])
        at += end - begin
    text = json.dumps(packed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
