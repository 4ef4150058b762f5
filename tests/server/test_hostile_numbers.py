"""Rule B: every number of every body, made of the schema, as NaN, infinity, huge, negative, of another type.

Knows: the bodies' fields. Does not know: which ranges are right (`test_openapi.py` holds those).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from served import Served

from quire.server import schema

BODIES: dict[str, tuple[type[schema.Body], dict[str, Any]]] = {
    "/v1/chat/completions": (schema.ChatBody, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
    "/v1/completions": (schema.CompletionBody, {"prompt": "Hi", "max_tokens": 2}),
    "/tokenize": (schema.TokenizeBody, {"prompt": "Hi"}),
    "/detokenize": (schema.DetokenizeBody, {"tokens": [1]}),
}
# As they stand in JSON text; Python's own parser takes the first three unless it is told not to.
NEVER = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 400, "1" * 5000, "1.5e308e")
HUGE = ("9223372036854775808", "-9223372036854775809", "18446744073709551616", "2147483648", "-2147483649", "1e308",
        "-1e308", "4294967297")  # fmt: skip
OTHER = ("true", '"1"', "[1]", '{"a": 1}', '""', "[]", "{}")
SMALL = ("1e-400", "-0.0", "-1", "0", "5e-324")


def numbers(kind: Any, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where numbers may stand in what a JSON schema describes."""
    for inner in kind.get("anyOf", ()):
        yield from numbers(inner, path)
    if kind.get("type") in ("integer", "number"):
        yield path
    if kind.get("type") == "array":
        yield from numbers(kind.get("items", {}), (*path, 0))
    for name, inner in kind.get("properties", {}).items():
        yield from numbers(inner, (*path, name))
    if isinstance(kind.get("additionalProperties"), dict):
        yield from numbers(kind["additionalProperties"], (*path, "5"))


def places() -> list[tuple[str, tuple[object, ...]]]:
    found = []
    for url, (body, _) in BODIES.items():
        whole = body.model_json_schema()
        text = json.dumps({key: value for key, value in whole.items() if key != "$defs"})
        for name, inner in whole.get("$defs", {}).items():
            text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(inner))
        found += [(url, path) for path in dict.fromkeys(numbers(json.loads(text)))]
    return found


def test_there_are_numbers_to_try() -> None:
    paths = [path for _, path in places()]
    assert len(paths) > 40
    assert ("logit_bias", "5") in paths
    assert ("repetition_detection", "min_count") in paths
    assert ("stop_token_ids", 0) in paths


def body_with(url: str, path: tuple[object, ...], text: str) -> bytes:
    value: Any = "HERE"
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return json.dumps({**BODIES[url][1], **value}).replace('"HERE"', text).encode()


@pytest.mark.parametrize(("url", "path"), places(), ids=lambda value: "/".join(map(str, value)).strip("/") or None)
def test_a_number_that_is_none_is_refused_by_its_name(rambler: Served, url: str, path: tuple[object, ...]) -> None:
    for text in NEVER:
        answer = rambler.post(url, body_with(url, path, text))
        assert answer.status == 400, (path, text)
        assert answer.error["type"] == "invalid_request_error"
    for text in HUGE + OTHER + SMALL:
        answer = rambler.post(url, body_with(url, path, text))
        assert answer.status in (200, 400), (path, text, answer.body)
        if answer.status == 400:
            assert str(path[0]) in (answer.error["param"] or "") or path[0] in LINKED, (path, text, answer.error)
            assert len(answer.error["message"]) < 1200
        else:
            answer.json()
    assert rambler.client.num_open == rambler.service.door.num_inside == 0


# Right in itself, and refused for what it does to another field, by whose name it is told.
LINKED = {"min_tokens", "n", "best_of", "max_completion_tokens", "top_logprobs", "length_penalty", "allowed_token_ids"}


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "0", "1e9", "1_000", "0x10", "１", "1 ", "", "1,2", "9" * 400, "1e3"]
)
def test_a_deadline_that_is_none_is_refused(rambler: Served, value: str) -> None:
    raw = value.encode().decode("latin-1")
    answer = rambler.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1}, x_quire_deadline_ms=raw)
    if value == "1 ":
        assert answer.status in (200, 429)
    else:
        assert answer.status == 400
        assert answer.error["param"] == "x-quire-deadline-ms"
