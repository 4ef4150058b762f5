"""Files that change under a running server. Knows: keys' files. Does not know: signals, clocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quire.cli.reloading import Kept, Reloading
from quire.tenancy.keys import Key, KeyRing, hash_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(Key("a", hash_of("a")).as_toml())
    return path


def kept(path: Path) -> tuple[KeyRing, Reloading, list[str]]:
    ring, said = KeyRing(path), []  # type: ignore[var-annotated]
    one = Kept("keys", (path,), ring.reload, lambda: f"{len(ring.names)} keys")
    return ring, Reloading([one], said.append), said


def test_a_changed_file_is_read_once_it_has_come_to_rest(path: Path) -> None:
    ring, reloading, said = kept(path)
    reloading.look()
    assert said == []
    path.write_text(Key("b", hash_of("b")).as_toml())
    reloading.look()
    assert ring.names == ["a"], "it may still be written"
    path.write_text(path.read_text() + Key("c", hash_of("c")).as_toml())
    reloading.look()
    assert ring.names == ["a"]
    reloading.look()
    assert ring.names == ["b", "c"]
    reloading.look()
    assert said == ["keys     2 keys, read again"]


def test_another_file_in_its_place_is_a_change(path: Path, tmp_path: Path) -> None:
    ring, reloading, _ = kept(path)
    other = tmp_path / "other"
    other.write_text(Key("z", hash_of("z")).as_toml())
    stamp = path.stat()
    os.replace(other, path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    reloading.look()
    reloading.look()
    assert ring.names == ["z"]


def test_one_that_is_no_good_changes_nothing_and_is_said_once(path: Path) -> None:
    ring, reloading, said = kept(path)
    path.write_text("[keys.b")
    for _ in range(4):
        reloading.look()
    assert ring.names == ["a"]
    assert len(said) == 1
    assert said[0].startswith("WARNING  the keys stay as they were: ")
    path.unlink()
    for _ in range(3):
        reloading.look()
    assert ring.names == ["a"]
    assert len(said) == 2


def test_an_order_does_not_wait(path: Path) -> None:
    ring, reloading, said = kept(path)
    assert reloading.has_any
    assert not Reloading([], said.append).has_any
    path.write_text(Key("b", hash_of("b")).as_toml())
    reloading.order()
    assert ring.names == ["b"]
    reloading.look()
    assert len(said) == 1
