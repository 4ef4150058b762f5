"""The OpenAPI document says what the server does. Knows: the app over a fake runner. Does not know: how it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from served import SPEC, Served, served

from quire.server import fields, schema
from quire.server.app import ROUTES
from quire.server.body_schemas import BODIES
from quire.server.forms import JSON_SCHEMA_FIELDS, STRUCTURED_FIELDS
from quire.server.openapi import document

jsonschema = pytest.importorskip("jsonschema")
DOCUMENT = document("0", ROUTES, SPEC.vocab_size)
SCHEMAS = DOCUMENT["components"]["schemas"]
HI = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def valid(name: str, body: object) -> bool:
    whole = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(body))


@pytest.fixture(scope="module")
def documented() -> Iterator[Served]:
    with served(api_docs=True, api_key="k") as server:
        yield server


def test_it_is_told_only_where_it_is_asked_for_and_with_a_key(documented: Served, rambler: Served) -> None:
    assert documented.get("/openapi.json").status == 401
    told = documented.get("/openapi.json", x_api_key="k")
    assert told.status == 200
    assert told.json()["paths"] == json.loads(json.dumps(document("0.0.0", ROUTES, SPEC.vocab_size)["paths"]))
    assert rambler.get("/openapi.json").status == 404
    for path in ("/docs", "/redoc", "/swagger"):
        assert documented.get(path, x_api_key="k").status == 404


def test_every_route_stands_in_it() -> None:
    told = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == {(path.replace(":path}", "}"), method) for path, method, _ in ROUTES}
    for methods in DOCUMENT["paths"].values():
        for method, operation in methods.items():
            assert ("requestBody" in operation) == (method == "post")


def test_all_schemas_are_schemas() -> None:
    for each in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema({**each, "components": DOCUMENT["components"]})
    refs = set(json.dumps(DOCUMENT).split('"#/components/schemas/')[1:])
    assert {text.split('"')[0] for text in refs} <= set(SCHEMAS)


@pytest.mark.parametrize("body", BODIES)
def test_every_field_that_is_known_stands_in_it_and_no_other(body: type[schema.Body]) -> None:
    told = SCHEMAS[body.__name__]
    assert set(told["properties"]) == {*body.model_fields, *fields.INERT, *schema.GUARDS.get(body, {})}
    assert told["additionalProperties"] is False


def test_forms_have_all_their_fields() -> None:
    wrapped = SCHEMAS["ResponseFormat"]["anyOf"][2]["properties"]["json_schema"]["properties"]
    assert set(wrapped) == JSON_SCHEMA_FIELDS
    told = {name for form in SCHEMAS["StructuredOutputs"]["oneOf"] for name in form["properties"]}
    assert told == STRUCTURED_FIELDS


def test_every_number_of_a_request_has_its_bounds() -> None:
    unbounded = []
    for body in BODIES:
        for name, kind in SCHEMAS[body.__name__]["properties"].items():
            for inner in kind.get("anyOf", [kind]):
                is_number = inner.get("type") in ("integer", "number")
                if is_number and not ({"minimum", "exclusiveMinimum"} & set(inner) and "maximum" in inner):
                    unbounded.append(f"{body.__name__}.{name}")
    assert not unbounded


GOOD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("/v1/completions", "CompletionBody", {"prompt": "Hi", "max_tokens": 2, "temperature": None, "stop": "x"}),
    ("/v1/completions", "CompletionBody", {"prompt": [[1, 2], [3]], "max_tokens": 1, "logit_bias": {"5": 1.5}}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "max_tokens": 1, "n": 2, "stop": ["a", "b"]}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "max_tokens": 1, "metadata": {"a": 1}, "store": False}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "max_tokens": 4, "tools": [TOOL], "tool_choice": "none"}),
    ("/v1/chat/completions", "ChatBody", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    ("/tokenize", "TokenizeBody", {"prompt": "Hi"}),
    ("/tokenize", "TokenizeChatBody", {"messages": [HI]}),
    ("/detokenize", "DetokenizeBody", {"tokens": [1, 2]}),
)
BAD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("/v1/completions", "CompletionBody", {"prompt": 5}),
    ("/v1/completions", "CompletionBody", {"prompt": [SPEC.vocab_size]}),
    ("/v1/completions", "CompletionBody", {"prompt": "Hi", "stop": ""}),
    ("/v1/completions", "CompletionBody", {"prompt": "Hi", "stop": ["x"] * 17}),
    ("/v1/completions", "CompletionBody", {"prompt": "Hi", "tools": [TOOL]}),
    ("/v1/chat/completions", "ChatBody", {"messages": []}),
    ("/v1/chat/completions", "ChatBody", {"messages": [{"role": "wizard", "content": "x"}]}),
    ("/v1/chat/completions", "ChatBody", {"messages": [{"role": "user"}]}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "temprature": 1}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "tools": [{"type": "function"}]}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "tool_choice": "maybe"}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "response_format": {"type": "xml"}}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "structured_outputs": {}}),
    ("/v1/chat/completions", "ChatBody", {"messages": [HI], "structured_outputs": {"regex": "a", "json": {}}}),
    ("/tokenize", "TokenizeBody", {"prompt": 5}),
    ("/detokenize", "DetokenizeBody", {"tokens": [-1]}),
)


@pytest.mark.parametrize(("path", "name", "body"), GOOD)
def test_what_it_allows_is_answered(rambler: Served, path: str, name: str, body: dict[str, Any]) -> None:
    assert valid(name, body)
    assert rambler.post(path, body).status == 200


@pytest.mark.parametrize(("path", "name", "body"), BAD)
def test_what_it_forbids_is_refused(rambler: Served, path: str, name: str, body: dict[str, Any]) -> None:
    assert not valid(name, body)
    assert rambler.post(path, body).status == 400


def _numbers() -> Iterator[tuple[str, str, object, bool]]:
    """Each bound of each number of each body, and just outside of it."""
    for path, name in (("/v1/chat/completions", "ChatBody"), ("/v1/completions", "CompletionBody")):
        for field, kind in SCHEMAS[name]["properties"].items():
            for inner in kind.get("anyOf", [kind]):
                if inner.get("type") in ("integer", "number"):
                    step = 1 if inner["type"] == "integer" else 0.001
                    low = inner.get("minimum", inner.get("exclusiveMinimum"))
                    yield path, field, low - step, False
                    yield path, field, inner["maximum"] + step, False
                    yield path, field, inner["maximum"], True
                    if "minimum" in inner:
                        yield path, field, inner["minimum"], True


@pytest.mark.parametrize(("path", "field", "value", "allowed"), tuple(_numbers()))
def test_its_bounds_are_those_that_are_held(
    rambler: Served, path: str, field: str, value: object, allowed: bool
) -> None:
    """Inside a request may still be refused, but not for the value being out of range."""
    body = {"messages": [HI]} if "chat" in path else {"prompt": "Hi", "echo": value == 0}
    answer = rambler.post(path, {**body, "max_tokens": 1, field: value})
    if not allowed:
        assert answer.status == 400
        assert field in answer.error["param"]
    elif answer.status != 200:
        assert "out of range" not in answer.error["message"]
