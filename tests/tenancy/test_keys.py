"""The file of keys. Knows: files by hand. Does not know: HTTP."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.errors import InvalidSetting
from quire.limits import MAX_KEYS
from quire.tenancy.keys import Key, KeyRing, hash_of, read_keys, warnings

HASH = "ab" * 32


def written(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def entry(name: str, **given: object) -> str:
    return "\n".join([f"[keys.{name}]", *(f"{field} = {value}" for field, value in given.items())]) + "\n"


def test_everything_that_an_entry_may_say(tmp_path: Path) -> None:
    full = entry("a-1", sha256=f'"{HASH}"', weight=2.5, deadline_ms=1500, priority=-7)
    path = written(tmp_path, "# ours\n" + full + entry("b_2", sha256=f'"{"cd" * 32}"'))
    assert read_keys(path) == (Key("a-1", HASH, 2.5, 1500, -7), Key("b_2", "cd" * 32))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no keys"),
        ("keys = 3\n", "holds no keys"),
        ("[keys]\n", "holds no keys"),
        ("[keys\n", "not TOML"),
        ("[keys]\na = 1\n", "not a table"),
        ("[kees.a]\n", "Did you mean keys?"),
        (entry("a", weight=1), "lacks its hash"),
        (entry("a", sha256='"short"'), "not a hash"),
        (entry("a", sha256=f'"{HASH.upper()}"'), "not a hash"),
        (entry("a", sha256=5), "not a hash"),
        (entry("a", sha256=f'"{HASH}"', wieght=1), "Did you mean weight?"),
        (entry("a", sha256=f'"{HASH}"', weight=0), "out of range"),
        (entry("a", sha256=f'"{HASH}"', weight="inf"), "out of range"),
        (entry("a", sha256=f'"{HASH}"', weight="nan"), "out of range"),
        (entry("a", sha256=f'"{HASH}"', weight="true"), "out of range"),
        (entry("a", sha256=f'"{HASH}"', weight='"1"'), "out of range"),
        (entry("a", sha256=f'"{HASH}"', deadline_ms=0), "out of range"),
        (entry("a", sha256=f'"{HASH}"', deadline_ms=10**9), "out of range"),
        (entry("a", sha256=f'"{HASH}"', priority=101), "out of range"),
        (entry("a", sha256=f'"{HASH}"', priority=0.5), "out of range"),
        (entry('"a b"', sha256=f'"{HASH}"'), "not plain"),
        (entry("a", sha256=f'"{HASH}"') + entry("a", sha256=f'"{HASH}"'), "not TOML"),
        (entry("a", sha256=f'"{HASH}"') + entry("b", sha256=f'"{HASH}"'), "two names have one key"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_keys(written(tmp_path, text))
    assert says in caught.value.message
    assert "--api-keys" in caught.value.message


def test_files_that_cannot_be_read_or_are_too_large(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read_keys(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSetting, match="not TOML"):
        read_keys(tmp_path / "bytes.toml")
    with pytest.raises(InvalidSetting, match="too large"):
        read_keys(written(tmp_path, "#" * 2**21))
    many = "".join(entry(f"k{i}", sha256=f'"{i:064x}"') for i in range(MAX_KEYS + 1))
    with pytest.raises(InvalidSetting, match="too many"):
        read_keys(written(tmp_path, many))


@given(
    st.builds(
        Key,
        st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
        st.just(HASH),
        st.integers(1, 1000).map(float),
        st.none() | st.integers(1, 10**5).map(float),
        st.integers(-100, 100),
    )
)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, key: Key) -> None:
    assert read_keys(written(tmp_path_factory.mktemp("keys"), key.as_toml())) == (key,)


def test_a_ring_finds_whose_a_key_is_and_reads_again(tmp_path: Path) -> None:
    path = written(tmp_path, entry("a", sha256=f'"{hash_of("one")}"') + entry("b", sha256=f'"{hash_of("two")}"'))
    ring = KeyRing(path)
    found = {secret: ring.find(hashlib.sha256(secret.encode()).digest()) for secret in ("one", "two", "three")}
    assert [key.name if key else None for key in found.values()] == ["a", "b", None]
    written(tmp_path, entry("c", sha256=f'"{hash_of("three")}"'))
    ring.reload()
    assert ring.names == ["c"]
    written(tmp_path, "nonsense")
    with pytest.raises(InvalidSetting):
        ring.reload()
    assert ring.names == ["c"], "a file that cannot be used changes nothing"


def test_a_file_that_everyone_may_read_is_worth_a_word(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.chmod(0o644)
    assert "644" in warnings(path)[0]
    path.chmod(0o640)
    assert warnings(path) == []
