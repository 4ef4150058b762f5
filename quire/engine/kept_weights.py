"""`--quantization-cache`: quantized weights kept in a file, so that a later start need not quantize again.

Knows: which file belongs to which checkpoint and plan, and what to say about it. Does not know: the file's form
(`weights/packed_file.py`), layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from quire.model_spec import ModelSpec
from quire.ops.linear import PACKED_LAYOUT, PackedWeight, from_buffer
from quire.plan import Plan
from quire.weights import packed_file
from quire.weights.checkpoint import Checkpoint


class KeptWeights:
    """What `models.load` asks for weights before it reads the checkpoint, and tells when it had to.

    One of three: everything is here already; nothing is, and what comes is written down; or writing failed, and what
    comes is let go. `notes` says which, for people.
    """

    def __init__(self, path: Path, identity: packed_file.Identity) -> None:
        self.path, self.identity = path, identity
        self.notes: list[str] = []
        self._ready: dict[str, PackedWeight] = {}
        self._writer: packed_file.Writer | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the file was there and good (until its weights are taken)."""
        return bool(self._ready)

    def open(self, num_threads: int, progress: Callable[[int, int], None] | None) -> None:
        """Read the file if it can be used; otherwise begin a new one."""
        try:
            found = packed_file.read(self.path, self.identity, num_threads, progress)
            self._ready = {key: _weight(entry, held) for key, (entry, held) in found.items()}
            self.notes.append(f"quantized weights read from {self.path}")
        except (FileNotFoundError, NotADirectoryError):
            self._begin()
        except (packed_file.UnusableFile, ValueError) as problem:
            self.notes.append(f"quantized again: {self.path} cannot be used, {problem}")
            self._begin()

    def get(self, key: str) -> PackedWeight | None:
        """The weight, if the file was good."""
        return self._ready.pop(key, None)

    def put(self, key: str, weight: PackedWeight) -> None:
        """Write it down; a full disk ends the writing, not the start."""
        if self._writer is None:
            return
        stored = (weight.dtype, weight.group_size, weight.symmetric)
        try:
            self._writer.add(key, (weight.n, weight.k), stored, weight.buffer())
        except OSError as problem:
            self._give_up(problem)

    def finish(self) -> None:
        """Everything has been loaded: a new file takes its place."""
        if self._writer is None:
            return
        try:
            num_bytes = self._writer.finish()
            self.notes.append(f"quantized weights kept for the next start: {self.path} ({num_bytes / 2**20:.0f} MiB)")
        except OSError as problem:
            self._give_up(problem)

    def __enter__(self) -> KeptWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A load that did not end well leaves no part of a file behind."""
        if self._writer is not None:
            self._writer.abandon()

    def _begin(self) -> None:
        try:
            self._writer = packed_file.Writer(self.path, self.identity)
        except OSError as problem:
            self._give_up(problem)

    def _give_up(self, problem: OSError) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self.notes.append(f"WARNING: the quantized weights are not kept in {self.path.parent}: {problem.strerror}")


def kept_weights(plan: Plan, spec: ModelSpec, checkpoint: Checkpoint) -> KeptWeights:
    """The place of this checkpoint's weights in the precisions of `plan`."""
    folder = checkpoint.folder.resolve()
    precisions = f"{plan.precision.tag}-{plan.head_precision.tag}"
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    identity = {
        "layout": PACKED_LAYOUT,
        "precision": precisions,
        "model": hashlib.sha256(repr(spec).encode()).hexdigest(),
        **checkpoint.identity(),
    }
    return KeptWeights(Path(plan.quantization_cache) / f"{folder.name}-{place}-{precisions}.quire", identity)


def _weight(entry: packed_file.Entry, held: Any) -> PackedWeight:
    """Raises ValueError where the bytes are not as many as the shape and format need."""
    return from_buffer(entry.num_outputs, entry.num_inputs, entry.dtype, entry.group_size, entry.symmetric, held)
