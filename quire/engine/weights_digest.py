"""One digest of a checkpoint's weights, remembered by what the system says of its files.

    digest = SHA-256 of the lines "name dtype shape SHA-256 of the bytes", by name

It depends neither on how tensors are spread over files nor on their order, and anybody can compute it again. A large
checkpoint is hashed once: a small file remembers its tensors' hashes for as long as device, inode, size and both times
of each of its files stay as they were. Whoever can write that file decides what it says: it is a memory, no signature.

Knows: the file of hashes and when it may be believed. Does not know: how tensors are hashed, what else
is in a receipt.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quire.plan import Plan
from quire.receipt import digest_of
from quire.weights.checkpoint import Checkpoint
from quire.weights.safetensors import FileStamp
from quire.weights.tensor_hashes import TensorHashes, check_unchanged

FORM = 1  # goes up when the file's meaning changes
LEAST_BYTES = 64 * 2**20  # less is hashed in the time that a file system takes to be asked
SETTLED_NS = 10**10  # file systems' clocks are coarse: what changed just now could change again at the same time
HOME = Path("~/.cache/quire")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the file holds. `files` are name and stamp, `hashes` are hex digests by tensor."""

    form: int
    files: tuple[tuple[str, FileStamp], ...]
    hashes: dict[str, str]
    digest: str


class WeightsDigest:
    """Found at once or hashed while the weights are packed. `notes` are for people."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.notes: list[str] = []
        self._checkpoint, self._clock_ns, self._stack = checkpoint, clock_ns, ExitStack()
        self._path = remembering_file(plan, checkpoint)
        self._found = None if self._path is None else _recall(self._path, checkpoint)
        self._hashing: TensorHashes | None = None
        if self._found is None:
            self._hashing = self._stack.enter_context(TensorHashes(checkpoint, plan.threads))

    def result(self) -> str:
        """The digest (hex); waits for the hashes. Raises `BrokenCheckpoint` where a file changed meanwhile."""
        hashes = None if self._hashing is None else self._hashing.result()
        check_unchanged(self._checkpoint)
        if hashes is None:
            return self._found or ""
        digest = digest_of_hashes(self._checkpoint, hashes)
        self._remember(hashes, digest)
        return digest

    def __enter__(self) -> WeightsDigest:
        return self

    def __exit__(self, *_: object) -> None:
        """A load that fails waits for no hash that has not begun."""
        self._stack.close()

    def _remember(self, hashes: Mapping[str, str], digest: str) -> None:
        files = _stamps(self._checkpoint)
        if self._path is None or self._clock_ns() - max(stamp.changed_ns for _, stamp in files) < SETTLED_NS:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(asdict(Remembered(FORM, files, dict(hashes), digest))))
            part.replace(self._path)
        except OSError as problem:
            self.notes.append(f"the weights will be hashed again at the next start: {self._path}, {problem.strerror}")


def digest_of_hashes(checkpoint: Checkpoint, hashes: Mapping[str, str]) -> str:
    """The digest (hex) of tensors whose bytes have these hashes (hex)."""
    tensors = checkpoint.tensors
    return digest_of(
        [f"{name} {tensors[name][1].dtype} {list(tensors[name][1].shape)} {hashes[name]}" for name in sorted(hashes)]
    )


def remembering_file(plan: Plan, checkpoint: Checkpoint) -> Path | None:
    """Beside the kept quantized weights where there is a place for them, else in the user's cache; None for a small
    checkpoint, and where there is no such place."""
    if checkpoint.num_bytes < LEAST_BYTES:
        return None
    folder = checkpoint.folder.resolve()
    name = f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}-hashes.json"
    try:
        return (Path(plan.quantization_cache) if plan.quantization_cache else HOME.expanduser()) / name
    except RuntimeError:  # a user without a home
        return None


def _recall(path: Path, checkpoint: Checkpoint) -> str | None:
    """The digest that `path` remembers of these very files; None where anything is not as it was."""
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    meant = {"form": FORM, "files": _as_json(_stamps(checkpoint)), "hashes": None, "digest": None}
    if not isinstance(held, dict) or {**held, "hashes": None, "digest": None} != meant:
        return None
    hashes, digest = held.get("hashes"), held.get("digest")
    if not isinstance(hashes, dict) or sorted(hashes) != checkpoint.meant or not isinstance(digest, str):
        return None
    return digest if digest == digest_of_hashes(checkpoint, hashes) else None


def _as_json(stamps: tuple[tuple[str, FileStamp], ...]) -> Any:
    return [[name, asdict(stamp)] for name, stamp in stamps]


def _stamps(checkpoint: Checkpoint) -> tuple[tuple[str, FileStamp], ...]:
    return tuple((file.name, file.stamp) for file in checkpoint.files)
