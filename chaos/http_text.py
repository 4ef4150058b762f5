"""Requests as text, right ones and such as no library would write.

Knows: HTTP/1.1, JSON with what it does not allow. Does not know: which bodies make sense.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

NUM_STRANGERS = 64
HEALTHY_KEY = "sk-quire-chaos-healthy"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HOST = "127.0.0.1"
Pairs = Sequence[tuple[str, str]]


def stranger(number: int) -> str:
    """The key of one of many strangers: what one has used up, another has not."""
    return f"sk-quire-chaos-stranger-{number % NUM_STRANGERS:02}"


KEY = stranger(0)


class Raw:
    """JSON as it stands, valid or not: NaN, 1e999, half a surrogate pair."""

    def __init__(self, text: str) -> None:
        self.text = text


class Object:
    """A JSON object with its keys in order, and any of them more than once."""

    def __init__(self, *pairs: tuple[str, object]) -> None:
        self.pairs = pairs


def render(value: object) -> str:
    """JSON of a value, with `Raw` and `Object` in it; ASCII but for what is raw."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Object):
        return "{" + ", ".join(f"{json.dumps(name)}: {render(inner)}" for name, inner in value.pairs) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {render(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(render, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value)
    return json.dumps(value)


def _digits(value: int) -> str:
    """Python writes no integer of more than 4,300 digits."""
    return str(value) if value.bit_length() < 13_000 else "1" + "0" * 5000


def as_bytes(text: str) -> str:
    """Unicode text as the characters of its UTF-8 bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def head(method: str, path: str, headers: Pairs = (), version: str = "HTTP/1.1") -> str:
    """Request line and headers, with the empty line."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} {version}\r\n{lines}\r\n"


def usual(num_bytes: int | None = None, key: str | None = KEY, kind: str | None = "application/json") -> Pairs:
    """The headers of an honest client."""
    found = [("Host", HOST)]
    if key is not None:
        found.append(("Authorization", f"Bearer {key}"))
    if kind is not None and num_bytes is not None:
        found.append(("Content-Type", kind))
    if num_bytes is not None:
        found.append(("Content-Length", str(num_bytes)))
    return [*found, ("Connection", "close")]


def post(path: str, body: object, extra: Pairs = (), key: str | None = KEY) -> str:
    """A whole POST; a `str` body stands as it is (one character a byte), anything else is rendered."""
    text = body if isinstance(body, str) else render(body)
    return head("POST", path, [*usual(len(text), key), *extra]) + text


def get(path: str, extra: Pairs = (), key: str | None = KEY) -> str:
    """A whole GET."""
    return head("GET", path, [*usual(None, key), *extra])


def chunked(path: str, frames: str, extra: Pairs = ()) -> str:
    """A POST whose body is sent in chunks: `frames` as they stand."""
    headers = [pair for pair in usual(0) if pair[0] != "Content-Length"]
    return head("POST", path, [*headers, ("Transfer-Encoding", "chunked"), *extra]) + frames


def frame(data: str) -> str:
    """One honest chunk."""
    return f"{len(data):x}\r\n{data}\r\n"


LAST_FRAME = "0\r\n\r\n"
