"""Bytes to a JSON object, strictly: UTF-8, finite numbers, no key twice, bounded nesting and number of values, no lone
surrogates.

Knows: JSON. Does not know: which fields there are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from quire.errors import RequestError
from quire.limits import MAX_DIGITS, MAX_JSON_DEPTH, MAX_JSON_VALUES

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HUGE = re.compile(rb"[0-9][eE]\+?[0-9]{3}")


def parse_object(data: bytes) -> dict[str, object]:
    """The object in `data`. Raises `RequestError`, naming the field where one is at fault."""
    value = _parse(data)
    if not isinstance(value, dict):
        raise RequestError("the body is not a JSON object", got=type(value).__name__, allowed="an object: {...}")
    return value


def _parse(data: bytes) -> object:
    _check_count(data)
    constants: list[str] = []

    def constant(name: str) -> float:
        constants.append(name)
        return math.nan

    try:
        text = data.decode("utf-8")
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise RequestError("the body is not UTF-8", got=f"byte {data[error.start]:#04x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise RequestError("the body is not valid JSON", got=f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep(None) from None
    except ValueError:
        raise RequestError("the body holds a number with too many digits", allowed=f"{MAX_DIGITS} digits") from None
    if constants or _needs_look(data):
        check_values(value)
    return value


def _check_count(data: bytes) -> None:
    """Refuse too many values before any is built. Commas and brackets count them; only where there are many of these
    is it looked which of them stand in strings."""
    if _num_marks(data) < MAX_JSON_VALUES:
        return
    pieces = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if (num_values := 1 + sum([_num_marks(piece) for piece in pieces[::2]])) > MAX_JSON_VALUES:
        raise RequestError("the body holds too many values", got=num_values, allowed=f"{MAX_JSON_VALUES} values")


def _num_marks(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise RequestError("a key stands twice in one JSON object", got=twice, param=twice[:64])
    return found


def _needs_look(data: bytes) -> bool:
    """Whether anything in `data` could be what `check_values` refuses; a long list of ids is not walked for nothing."""
    return (
        data.count(b"[") + data.count(b"{") > MAX_JSON_DEPTH
        or _SURROGATE.search(data) is not None
        or _HUGE.search(data) is not None
    )


def check_values(value: object, name: str = "") -> None:
    """Walk `value`: refuse lone surrogates, numbers that are not finite, and nesting deeper than `MAX_JSON_DEPTH`."""
    waiting: list[tuple[object, str, int]] = [(value, name, 1)]
    while waiting:
        item, path, depth = waiting.pop()
        if isinstance(item, (dict, list)):
            if depth > MAX_JSON_DEPTH:
                raise _too_deep(path)
            waiting.extend((inner, inner_path, depth + 1) for inner, inner_path in _items(item, path))
        elif isinstance(item, str):
            _check_text(item, path)
        elif isinstance(item, float) and not math.isfinite(item):
            raise RequestError("a number is not finite", got=str(item), allowed="finite numbers", param=path or None)


def _items(container: dict[str, object] | list[object], path: str) -> Iterator[tuple[object, str]]:
    if isinstance(container, list):
        for index, inner in enumerate(container):
            if isinstance(inner, (str, float, dict, list)):
                yield inner, f"{path}[{index}]"
        return
    for key, inner in container.items():
        _check_text(key, path)
        yield inner, f"{path}.{key}"[:200].lstrip(".")


def _check_text(text: str, path: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            "a string holds half of a surrogate pair",
            got=f"U+{ord(text[error.start]):04X} at character {error.start}",
            allowed="Unicode text",
            param=path or None,
        ) from None


def _too_deep(path: str | None) -> RequestError:
    param = path.split("[")[0].split(".")[0] or None if path else None
    return RequestError("the JSON is nested too deeply", allowed=f"{MAX_JSON_DEPTH} levels", param=param)
