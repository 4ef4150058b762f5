"""The digest of a checkpoint's weights: what it depends on, when it is remembered, and when it is not believed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quire.engine import weights_digest
from quire.engine.weights_digest import WeightsDigest, remembering_file
from quire.errors import BrokenCheckpoint
from quire.receipt import digest_of
from quire.weights.checkpoint import INDEX, SINGLE, Checkpoint
from quire.weights.tensor_hashes import TensorHashes
from tests.weights.writing import encode, header_of, write

RNG = np.random.default_rng(5)
A = RNG.standard_normal((600, 1000), np.float32)  # more than two chunks
B = RNG.standard_normal(7).astype(np.float16)
TENSORS = {"b": ("F16", B), "a": ("F32", A), "e": ("F32", np.zeros((0, 3), np.float32))}
LATER_NS = 2**62


def plan(cache: Path | None) -> Any:
    return SimpleNamespace(threads=2, quantization_cache="" if cache is None else str(cache))


def digest(folder: Path, cache: Path | None = None, now_ns: int = LATER_NS) -> str:
    with WeightsDigest(plan(cache), Checkpoint.open(folder), lambda: now_ns) as weights:
        return weights.result()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    write(path / SINGLE, TENSORS)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to remember even small checkpoints' hashes in."""
    monkeypatch.setattr(weights_digest, "LEAST_BYTES", 1)
    return tmp_path / "kept"


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorHashes, "__init__", lambda *_: pytest.fail("it was hashed"))


def test_anybody_can_compute_it(folder: Path) -> None:
    def line(name: str, dtype: str, array: np.ndarray) -> str:
        return f"{name} {dtype} {list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()}"

    assert digest(folder) == digest_of([line(name, *TENSORS[name]) for name in sorted(TENSORS)])


def test_shards_and_order_change_nothing_and_every_bit_name_and_format_does(folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    for number, name in enumerate(("e", "a", "b")):
        write(sharded / f"{number}.safetensors", {name: TENSORS[name]})
    names = {"e": "0.safetensors", "a": "1.safetensors", "b": "2.safetensors"}
    (sharded / INDEX).write_text(json.dumps({"weight_map": names}))
    assert digest(sharded) == digest(folder)
    seen = {digest(folder)}
    changed = A.copy()
    changed.view(np.uint32)[-1, -1] ^= 1
    for other in (
        {**TENSORS, "a": ("F32", changed)},
        {**TENSORS, "a": ("F32", A.reshape(1000, 600))},
        {"B": TENSORS["b"], "a": TENSORS["a"], "e": TENSORS["e"]},
        {**TENSORS, "b": ("BF16", B)},
    ):
        write(folder / SINGLE, other)
        seen.add(digest(folder))
    assert len(seen) == 5


def test_buffers_that_mean_nothing_do_not_count(folder: Path) -> None:
    before = digest(folder)
    write(folder / SINGLE, {**TENSORS, "x.rotary_emb.inv_freq": ("F16", B)})
    assert digest(folder) == before


def test_it_is_remembered_by_the_identity_of_the_file(
    folder: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    first = digest(folder, cache)
    (held,) = cache.iterdir()
    assert held == remembering_file(plan(cache), Checkpoint.open(folder))
    request.getfixturevalue("never")
    assert digest(folder, cache) == first


@pytest.mark.parametrize("same_time", [False, True])
def test_a_changed_file_is_hashed_again(folder: Path, cache: Path, same_time: bool) -> None:
    """Also where its size is the same, and its modification time has been set back."""
    first, stat = digest(folder, cache), (folder / SINGLE).stat()
    with (folder / SINGLE).open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"\x7f")
    if same_time:
        os.utime(folder / SINGLE, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest(folder, cache) != first


@pytest.mark.parametrize("harm", ["torn", "hash", "digest", "names", "form"])
def test_a_memory_that_contradicts_itself_is_not_believed(folder: Path, cache: Path, harm: str) -> None:
    first = digest(folder, cache)
    (held,) = cache.iterdir()
    data = json.loads(held.read_bytes())
    if harm == "hash":
        data["hashes"]["a"] = "0" * 64
    elif harm == "digest":
        data["digest"] = "0" * 64
    elif harm == "names":
        del data["hashes"]["a"]
    elif harm == "form":
        data["form"] += 1
    held.write_text(json.dumps(data)[: 20 if harm == "torn" else None])
    assert digest(folder, cache) == first


def test_a_file_that_changed_just_now_is_not_remembered(folder: Path, cache: Path) -> None:
    digest(folder, cache, (folder / SINGLE).stat().st_ctime_ns + 10**9)
    assert not cache.exists()


def test_a_place_that_cannot_be_written_is_a_note(folder: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with WeightsDigest(plan(cache), Checkpoint.open(folder), lambda: LATER_NS) as weights:
        assert len(weights.result()) == 64
        assert "hashed again at the next start" in weights.notes[0]


def test_small_checkpoints_are_not_remembered(folder: Path, tmp_path: Path) -> None:
    assert remembering_file(plan(tmp_path), Checkpoint.open(folder)) is None


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    for change in ("written", "replaced"):
        checkpoint = Checkpoint.open(folder)
        if change == "written":
            os.utime(folder / SINGLE, ns=(1, 1))
        else:
            (folder / "new").write_bytes(encode(*header_of(TENSORS)))
            (folder / "new").replace(folder / SINGLE)
        with WeightsDigest(plan(None), checkpoint) as weights, pytest.raises(BrokenCheckpoint, match="changed while"):
            weights.result()
