"""Typed reading of a JSON object from a file.

Knows: how a value of the wrong type or out of range is refused by its key. Does not know: what any key means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quire.errors import BrokenCheckpoint
from quire.limits import MAX_CONFIG_BYTES

MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TypedJson:
    """A JSON object whose values are read by key and type; null means absent. Raises `BrokenCheckpoint`."""

    values: Mapping[str, object]
    file: str

    def has(self, key: str) -> bool:
        """Whether `key` is there and not null."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None, low: int = 1, high: int = MAX_INTEGER) -> int:
        """An integer in low..high; `default` where absent, and an error where there is no default."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.missing(key, f"an integer from {low} to {high}")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, value, f"an integer from {low} to {high}")
        return value

    def number(
        self, key: str, default: float | None = None, low: float = 0.0, high: float = 1e38, closed: bool = False
    ) -> float:
        """A finite number above `low` (or equal, if `closed`) and at most `high`."""
        value = self.values.get(key)
        value = default if value is None else value
        allowed = f"a number {'from' if closed else 'above'} {low:g}, at most {high:g}"
        if value is None:
            raise self.missing(key, allowed)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.bad(key, value, allowed)
        if not (low <= value <= high and (closed or value > low)):
            raise self.bad(key, value, allowed)
        return float(value)

    def optional_number(self, key: str, low: float = 0.0, high: float = 1e38, closed: bool = False) -> float | None:
        """Like `number`, None where absent."""
        return self.number(key, low=low, high=high, closed=closed) if self.has(key) else None

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.bad(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.missing(key, "a string")
        if not isinstance(value, str):
            raise self.bad(key, value, "a string")
        return value

    def optional_text(self, key: str) -> str | None:
        """A string, None where absent."""
        return self.text(key) if self.has(key) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty where absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.bad(key, value, "a list of strings")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """An integer or a list of them, as a tuple; empty where absent."""
        value = self.values.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int):
                raise self.bad(key, item, "an integer or a list of integers")
        return tuple(items)

    def section(self, key: str) -> TypedJson:
        """The object under `key`, an empty one where absent."""
        value = self.values.get(key)
        if value is None:
            return TypedJson({}, f"{self.file}: {key}")
        if not isinstance(value, dict):
            raise self.bad(key, value, "an object")
        return TypedJson(value, f"{self.file}: {key}")

    def missing(self, key: str, allowed: str) -> BrokenCheckpoint:
        """The error of an absent key."""
        return BrokenCheckpoint(f"{self.file} has no {key}", allowed=allowed, param=key)

    def bad(self, key: str, got: object, allowed: str) -> BrokenCheckpoint:
        """The error of a value that cannot be used."""
        return BrokenCheckpoint(f"{key} in {self.file} is not usable", got=got, allowed=allowed, param=key)


def read_json(path: Path, hint: str | None = None) -> TypedJson:
    """Read the object in `path`. Raises `BrokenCheckpoint` where it is missing, unreadable or not a JSON object."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise BrokenCheckpoint(f"{path} is too large", got=path.stat().st_size, allowed=f"{MAX_CONFIG_BYTES} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BrokenCheckpoint(f"there is no {path.name} in {path.parent}", hint=hint) from None
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read", got=error.strerror) from None
    return TypedJson(parse_object(data, path.name), path.name)


def parse_object(data: bytes, name: str) -> dict[str, object]:
    """The JSON object in `data`; non-finite numbers and anything but an object raise `BrokenCheckpoint`."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{name} is not valid JSON", got=str(error) or type(error).__name__) from None
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{name} does not hold a JSON object", got=type(value).__name__)
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
