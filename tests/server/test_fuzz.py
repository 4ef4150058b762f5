"""Laws of the edge: whatever the body, an answer comes, it is never a 500, and nothing stays in the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import MAX_MODEL_LEN, Served

from quire.errors import RequestError
from quire.limits import MAX_JSON_DEPTH
from quire.server import fields, schema
from quire.server.json_body import parse_object

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, 2, -1, 0.5, 2**31, 2**63, 2**64, -(2**63) - 1, 1e308, 10**400]),
)
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
KEYS = st.one_of(TEXT, st.sampled_from(["5", "type"]))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
ROLES = st.sampled_from(["user", "assistant", "system", "developer", "tool", "wizard"])
PARTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": TEXT}), max_size=3)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": st.one_of(TEXT, PARTS, JSON)}, optional={"name": JSON, "tool_calls": JSON}
    ),
    max_size=4,
)
PROMPTS = st.one_of(TEXT, st.lists(TEXT, max_size=3), st.lists(st.integers(-1, 4097), max_size=8), JSON)
NAMES: dict[str, list[str]] = {
    CHAT: sorted({*schema.ChatBody.model_fields, *fields.CHAT, *fields.INERT} - {"messages"}),
    COMPLETIONS: sorted({*schema.CompletionBody.model_fields, *fields.COMPLETIONS, *fields.INERT} - {"prompt"}),
}
LIKELY = st.one_of(st.booleans(), st.integers(0, 3), st.floats(0, 2), st.just(["a", "e"]), st.just({"5": 1.5}))


def bodies(path: str) -> st.SearchStrategy[dict[str, Any]]:
    first = ("messages", MESSAGES) if path == CHAT else ("prompt", PROMPTS)
    valid = st.one_of(first[1], st.just([{"role": "user", "content": "Hi"}] if path == CHAT else "Hi"))
    extra = st.dictionaries(st.sampled_from(NAMES[path]), st.one_of(LIKELY, JSON), max_size=4)
    return st.builds(lambda value, more: {first[0]: value, **more}, valid, extra)


def check(server: Served, path: str, data: bytes) -> None:
    answer = server.post(path, data)
    assert answer.status in (200, 400, 404), answer.body
    if answer.status != 200:
        error = answer.error
        assert set(error) == {"message", "type", "param", "code"}
        assert len(error["message"]) < 1200
    elif not answer.headers["content-type"].startswith("text/event-stream"):
        answer.json()
    else:
        assert answer.events()[-1] == "[DONE]"
    assert server.client.num_open == server.service.door.num_inside == 0


@FUZZ
@given(body=bodies(CHAT))
def test_any_chat_body_is_answered(rambler: Served, body: dict[str, Any]) -> None:
    check(rambler, CHAT, json.dumps(body).encode())


@FUZZ
@given(body=bodies(COMPLETIONS))
def test_any_completions_body_is_answered(rambler: Served, body: dict[str, Any]) -> None:
    check(rambler, COMPLETIONS, json.dumps(body).encode())


@FUZZ
@given(body=JSON, path=st.sampled_from([CHAT, COMPLETIONS, "/tokenize", "/detokenize"]))
def test_any_json_is_answered(rambler: Served, body: Any, path: str) -> None:
    check(rambler, path, json.dumps(body).encode())


@FUZZ
@given(data=st.binary(max_size=60), path=st.sampled_from([CHAT, "/tokenize"]))
def test_any_bytes_are_answered(rambler: Served, data: bytes, path: str) -> None:
    assert rambler.post(path, data).status == 400
    assert rambler.post(path, b'{"messages": ' + data).status == 400


@FUZZ
@given(text=TEXT, special=st.booleans())
def test_tokenize_and_detokenize_are_inverse(rambler: Served, text: str, special: bool) -> None:
    answer = rambler.post("/tokenize", {"prompt": text, "add_special_tokens": special})
    try:
        text.encode()
    except UnicodeEncodeError:
        assert answer.error["param"] == "prompt"
        return
    ids = answer.json()["tokens"]
    assert answer.json()["count"] == len(ids)
    assert answer.json()["max_model_len"] == MAX_MODEL_LEN
    assert rambler.post("/detokenize", {"tokens": ids}).json()["prompt"] == text


@FUZZ
@given(value=st.recursive(st.one_of(st.integers(), st.text(max_size=5)), lambda inner: st.lists(inner, max_size=3)))
def test_json_bodies_are_read_as_python_reads_them(value: Any) -> None:
    data = json.dumps({"a": value}, ensure_ascii=False).encode("utf-8")
    assert parse_object(data) == {"a": value}


@pytest.mark.parametrize("depth", [1, MAX_JSON_DEPTH - 1, MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1, 1000 * MAX_JSON_DEPTH])
def test_nesting_has_a_limit(depth: int) -> None:
    body = b'{"a": ' * depth + b"1" + b"}" * depth
    if depth <= MAX_JSON_DEPTH:
        parse_object(body)
    else:
        with pytest.raises(RequestError, match="nested"):
            parse_object(body)
