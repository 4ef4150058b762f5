"""The file of packed weights: what was written comes back; anything else is refused before it is used."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.weights import packed_file
from quire.weights.packed_file import CHUNK_BYTES, PROLOGUE, UnusableFile, Writer, read

IDENTITY = {"layout": 1, "files": [["model.safetensors", 10, 20]], "model": "abc"}
LARGE = np.random.default_rng(3).integers(0, 256, 2 * CHUNK_BYTES + 77, np.uint8)
SMALL = np.arange(100, dtype=np.uint8)


def write(path: Path, identity: dict[str, Any] = IDENTITY) -> Path:
    writer = Writer(path, identity)
    writer.add("large", (48, 77), ("int8", 128, True), LARGE)
    writer.add("small", (3, 5), ("int4", 0, False), SMALL)
    assert writer.finish() == path.stat().st_size
    return path


def reason(path: Path, identity: dict[str, Any] = IDENTITY) -> str:
    with pytest.raises(UnusableFile) as caught:
        read(path, identity, 2)
    return str(caught.value)


def index_of(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    _, begin, length, _ = PROLOGUE.unpack(raw[: PROLOGUE.size])
    return json.loads(raw[begin : begin + length])


def put_index(path: Path, text: bytes) -> Path:
    """Another index in place of the file's own, with a good checksum."""
    raw = path.read_bytes()
    _, begin, _, _ = PROLOGUE.unpack(raw[: PROLOGUE.size])
    prologue = PROLOGUE.pack(packed_file.MAGIC, begin, len(text), zlib.crc32(text))
    path.write_bytes(prologue + raw[PROLOGUE.size : begin] + text)
    return path


@pytest.mark.parametrize("num_threads", [1, 3])
def test_what_was_written_comes_back(tmp_path: Path, num_threads: int) -> None:
    path = write(tmp_path / "new" / "folder" / "w.quire")
    told: list[tuple[int, int]] = []
    found = read(path, IDENTITY, num_threads, lambda done, total: told.append((done, total)))
    assert list(found) == ["large", "small"]
    entry, held = found["large"]
    assert (entry.num_outputs, entry.num_inputs, entry.dtype, entry.group_size, entry.symmetric) == (
        48, 77, "int8", 128, True,
    )  # fmt: skip
    assert np.array_equal(held, LARGE)
    assert np.array_equal(found["small"][1], SMALL)
    assert all(held.ctypes.data % 64 == 0 and not held.flags.writeable for _, held in found.values())
    assert told[-1] == (LARGE.size + SMALL.size,) * 2
    assert told == sorted(told)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "w.quire", IDENTITY)
    writer.add("small", (3, 5), ("int4", 0, True), SMALL)
    assert not (tmp_path / "w.quire").exists()
    writer.abandon()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    old = write(tmp_path / "w.quire").read_bytes()
    abandoned = Writer(tmp_path / "w.quire", IDENTITY)
    abandoned.abandon()
    assert (tmp_path / "w.quire").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["w.quire"]


def test_what_a_killed_writer_left_is_swept_up_and_no_living_writer_is(tmp_path: Path) -> None:
    path = tmp_path / "w.quire"
    left = tmp_path / ".w.quire.killed.part"
    other = tmp_path / ".other.quire.killed.part"
    for part in (left, other):
        part.write_bytes(b"half a file")
    living, second = Writer(path, IDENTITY), Writer(path, IDENTITY)
    parts = sorted(tmp_path.iterdir())
    assert left not in parts
    assert other in parts
    assert len(parts) == 3
    for writer in (living, second):
        writer.abandon()


def test_nobody_else_may_write_it(tmp_path: Path) -> None:
    assert write(tmp_path / "w.quire").stat().st_mode & 0o077 == 0


def test_no_file_is_no_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "w.quire", IDENTITY, 1)


def test_what_changed_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "w.quire")
    other = {**IDENTITY, "layout": 2, "files": [["model.safetensors", 10, 21]]}
    assert reason(path, other) == "it was made from something else: layout, files changed"
    assert "tensors changed" in reason(path, {**IDENTITY, "tensors": "x"})


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "w.quire")
    whole = path.read_bytes()
    for size in (0, 1, 63, 64, 4096, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "truncated or damaged" in reason(path) or size < PROLOGUE.size
    path.write_bytes(whole + b"\0")
    assert "truncated or damaged" in reason(path)


def test_every_damaged_byte_of_a_weight_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "w.quire")
    whole = path.read_bytes()
    begin = index_of(path)["weights"]["large"][5]
    for place in (begin, begin + CHUNK_BYTES, begin + LARGE.size - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert reason(path) == "its weights are damaged"


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("little") / "w.quire"
    writer = Writer(path, IDENTITY)
    writer.add("small", (3, 5), ("int4", 0, False), SMALL)
    writer.finish()
    return path, path.read_bytes()


@settings(deadline=None)  # it writes files
@given(data=st.data())
def test_any_damaged_byte_is_refused(little: tuple[Path, bytes], data: st.DataObject) -> None:
    path, whole = little
    raw = bytearray(whole)
    used = [*range(28), *range(packed_file.BODY_BEGIN, len(raw))]  # between them lie zeros that are never read
    raw[data.draw(st.sampled_from(used))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    reason(path)


def changed(place: int, value: object) -> Callable[[dict[str, Any]], object]:
    """An index whose entry for `large` has another value at `place`."""

    def change(index: dict[str, Any]) -> object:
        index["weights"]["large"][place] = value
        return index

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda index: [],
        lambda index: {},
        lambda index: {**index, "weights": []},
        lambda index: {**index, "weights": {"large": 7}},
        lambda index: {**index, "weights": {"large": []}},
        lambda index: {**index, "weights": {"large": [1, 2]}},
        changed(0, -1),
        changed(1, 2**63),
        changed(1, True),
        changed(2, 8),
        changed(3, None),
        changed(4, 1),
        changed(5, 0),
        changed(5, 4097),
        changed(5, 2**40 * 64),
        changed(6, 2**50),
        changed(6, -5),
        changed(6, "9"),
        changed(7, [1]),
        changed(7, 3),
        changed(7, [1, 2, "3"]),
    ],
)
def test_an_index_that_lies_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object]
) -> None:
    path = write(tmp_path / "w.quire")
    put_index(path, json.dumps(change(index_of(path))).encode())
    monkeypatch.setattr(packed_file, "_huge_pages", pytest.fail)
    assert "damaged" in reason(path)


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    for text in (b"", b"{", b"\xff", b"[" * 100_000):
        assert "index is damaged" in reason(put_index(write(tmp_path / "w.quire"), text))


def test_an_index_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w.quire")
    _, _, length, _ = PROLOGUE.unpack(path.read_bytes()[: PROLOGUE.size])
    monkeypatch.setattr(packed_file, "MAX_PACKED_INDEX_BYTES", length)
    assert read(path, IDENTITY, 1)
    monkeypatch.setattr(packed_file, "MAX_PACKED_INDEX_BYTES", length - 1)
    assert "truncated or damaged" in reason(path)


def test_a_file_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.quire").write_bytes(struct.pack("<Q", 2) + b"{}" + bytes(100))
    assert "no file of packed weights" in reason(tmp_path / "w.quire")
    (tmp_path / "d.quire").mkdir()
    assert "cannot be read" in reason(tmp_path / "d.quire")


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    writer = Writer(tmp_path / "w.quire", IDENTITY)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        writer.add("small", (3, 5), ("int4", 0, True), SMALL)
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
