"""The file of `--api-keys`: whose key it is, by its hash, and on what terms. A key itself is never stored.

    [keys.alice]
    sha256 = "6b86b2..."        of the key
    weight = 2.0                share of the machine beside others; 1 if absent
    deadline_ms = 2000          of a first token, for requests that name none; none if absent
    priority = -5               the lowest number that its requests may ask for, which is the soonest; 0 if absent
    max_concurrent = 32         requests that it may have inside at once; --max-concurrent-per-key if absent

TOML because people edit it by hand and comment on it, and because the standard library reads it strictly. The hash is a
plain SHA-256: keys are drawn with 256 random bits, so there is nothing to guess that a slow hash would protect.

Knows: files, hashes. Does not know: requests, who waits.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import math
import re
import stat
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from quire.errors import InvalidSetting
from quire.limits import MAX_KEY_FILE_BYTES, MAX_KEYS
from quire.request import MAX_DEADLINE_MS, MAX_PRIORITY, MAX_WEIGHT

OPTION = "--api-keys"
MAX_CONCURRENT = 2**20
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One tenant's key. Lower priorities than `priority` are refused to it."""

    name: str
    sha256: str
    weight: float = 1.0
    deadline_ms: float | None = None
    priority: int = 0
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            _refuse("a key's name is not plain", self.name, "1 to 64 letters, digits, - and _")
        if not isinstance(self.sha256, str) or not _HASH.fullmatch(self.sha256):
            _refuse(f"sha256 of {self.name} is not a hash", self.sha256, "64 digits 0-9a-f")
        if not _is_number(self.weight) or not 0 < self.weight <= MAX_WEIGHT:
            _refuse(f"weight of {self.name} is out of range", self.weight, f"a number above 0 up to {MAX_WEIGHT:g}")
        late = self.deadline_ms
        if late is not None and not (_is_number(late) and 1 <= late <= MAX_DEADLINE_MS):
            _refuse(f"deadline_ms of {self.name} is out of range", late, f"1 to {MAX_DEADLINE_MS}")
        is_whole = isinstance(self.priority, int) and not isinstance(self.priority, bool)
        if not is_whole or not -MAX_PRIORITY <= self.priority <= MAX_PRIORITY:
            _refuse(f"priority of {self.name} is out of range", self.priority, f"{-MAX_PRIORITY} to {MAX_PRIORITY}")
        most = self.max_concurrent
        if most is not None and (
            isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MAX_CONCURRENT
        ):
            _refuse(f"max_concurrent of {self.name} is out of range", most, f"1 to {MAX_CONCURRENT}")

    def as_toml(self) -> str:
        """The lines that say it in a file, defaults left out."""
        lines = [f"[keys.{self.name}]", f'sha256 = "{self.sha256}"']
        lines += [f"weight = {self.weight:g}"] if self.weight != 1.0 else []
        lines += [f"deadline_ms = {self.deadline_ms:g}"] if self.deadline_ms is not None else []
        lines += [f"priority = {self.priority}"] if self.priority else []
        lines += [f"max_concurrent = {self.max_concurrent}"] if self.max_concurrent is not None else []
        return "\n".join(lines) + "\n"


class KeyRing:
    """All keys of a file; `reload` takes in what has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys = _with_digests(read_keys(path))

    @property
    def names(self) -> list[str]:
        """Whose keys there are, in the file's order."""
        return [key.name for _, key in self._keys]

    def find(self, digest: bytes) -> Key | None:
        """Whose key has this SHA-256; takes as long whichever it is, and if it is nobody's."""
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found

    def reload(self) -> None:
        """Read the file again. If it cannot be used, `InvalidSetting`, and all stays as it was."""
        self._keys = _with_digests(read_keys(self.path))


def hash_of(key: str) -> str:
    """What stands in the file for `key`."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file. Raises `InvalidSetting` for anything that is not understood whole."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as problem:
        raise InvalidSetting(f"{OPTION} cannot be read", got=problem.strerror, allowed="a TOML file") from problem
    if len(data) > MAX_KEY_FILE_BYTES:
        _refuse("the file is too large", f"more than {MAX_KEY_FILE_BYTES} bytes", f"{MAX_KEY_FILE_BYTES} bytes")
    try:
        found: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InvalidSetting(f"{OPTION}: the file is not TOML", got=str(problem), param=OPTION) from problem
    _check_names(found, ("keys",), "the file")
    tables = found.get("keys")
    if not isinstance(tables, dict) or not tables:
        _refuse("the file holds no keys", "an empty file" if tables is None else tables, "[keys.NAME] tables")
    if len(tables) > MAX_KEYS:
        _refuse("the file holds too many keys", len(tables), MAX_KEYS)
    keys = tuple(_key(name, table) for name, table in tables.items())
    twice = {key.sha256: key.name for key in keys}
    for key in keys:
        if twice[key.sha256] != key.name:
            _refuse("two names have one key", f"{key.name} and {twice[key.sha256]}", "a key of its own for each")
    return keys


def warnings(path: Path) -> list[str]:
    """What a person should know of how the file lies there."""
    mode = path.stat().st_mode
    if mode & stat.S_IROTH:
        return [f"{path} can be read by everyone on this machine (mode {stat.S_IMODE(mode):o}); chmod 600 it"]
    return []


def _key(name: str, table: object) -> Key:
    if not isinstance(table, dict):
        _refuse(f"keys.{name} is not a table", table, f"[keys.{name}]")
    known = tuple(entry.name for entry in fields(Key) if entry.name != "name")
    _check_names(table, known, f"keys.{name}")
    if "sha256" not in table:
        _refuse(f"keys.{name} lacks its hash", "no sha256", "sha256 = the key's SHA-256 in hex")
    return Key(name, **table)


def _check_names(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {nearest[0]}?" if nearest else None
            raise InvalidSetting(
                f"{OPTION}: {where} has a field that nobody knows", got=name, allowed=", ".join(known), hint=hint
            )


def _refuse(what: str, got: object, allowed: object) -> NoReturn:
    raise InvalidSetting(f"{OPTION}: {what}", got=got, allowed=allowed, hint="`quire keys new NAME` writes an entry.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _with_digests(keys: tuple[Key, ...]) -> list[tuple[bytes, Key]]:
    return [(bytes.fromhex(key.sha256), key) for key in keys]
