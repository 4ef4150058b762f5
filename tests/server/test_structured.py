"""Answers that must have a form, end to end: the bundled model behind the server, streamed and not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from served import Answer, Served, served

from quire.engine.grammar_process import ProcessKeeper
from quire.engine.grammars import ThreadKeeper

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "ä€"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
QUESTION = {"messages": [{"role": "user", "content": "Who lives here?"}], "max_tokens": 120}


@pytest.fixture(scope="module", params=[ThreadKeeper, ProcessKeeper])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with served(keep=request.param) as running:
        yield running


def ask(server: Served, **body: Any) -> Answer:
    return server.post("/v1/chat/completions", {**QUESTION, **body})


def text_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"])


def json_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": schema, **more}}


def check_person(text: str) -> None:
    value = json.loads(text)
    assert list(value) == ["name", "age", "tags"]
    assert len(value["name"]) <= 12
    assert 0 <= value["age"] <= 120
    assert set(value["tags"]) <= {"a", "b", "ä€"}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_a_schema_is_held(server: Served, temperature: float) -> None:
    for seed in range(8):
        answer = ask(server, response_format=json_schema(PERSON, strict=True), temperature=temperature, seed=seed)
        check_person(text_of(answer))


def test_streamed_and_whole_are_the_same_text(server: Served) -> None:
    body = {"response_format": json_schema(PERSON), "temperature": 1.5, "seed": 5}
    whole = text_of(ask(server, **body))
    events = ask(server, **body, stream=True).events()
    assert events.pop() == "[DONE]"
    parts = [event["choices"][0] for event in events]
    assert "".join(part["delta"].get("content") or "" for part in parts) == whole
    assert parts[-1]["finish_reason"] == "stop"
    check_person(whole)


def test_n_samples_each_hold_it_and_differ(server: Served) -> None:
    answer = ask(server, response_format=json_schema(PERSON), temperature=2.0, seed=1, n=6)
    texts = [choice["message"]["content"] for choice in answer.json()["choices"]]
    for text in texts:
        check_person(text)
    assert len(set(texts)) > 1


def test_completions_hold_it_for_every_prompt(server: Served) -> None:
    body = {"prompt": ["One", "Two"], "max_tokens": 120, "temperature": 1.0, "response_format": json_schema(PERSON)}
    answer = server.post("/v1/completions", body)
    assert answer.status == 200, answer.body
    for choice in answer.json()["choices"]:
        check_person(choice["text"])


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"structured_outputs": {"regex": r"[A-F]{3}/\d{2}"}}, r"[A-F]{3}/\d{2}"),
    ({"guided_regex": "(yes|no)!"}, "(yes|no)!"),
    ({"structured_outputs": {"choice": ["red", "dark red", "blü"]}}, "red|dark red|blü"),
    ({"guided_choice": ["left", "right"]}, "left|right"),
    ({"structured_outputs": {"grammar": 'root ::= pair ("," pair){2}\npair ::= [a-c] "=" [0-9]'}}, r"([a-c]=\d,?){3}"),
    ({"guided_grammar": 'start: "(" WORD ")"\nWORD: /[a-z]{2,5}/'}, r"\([a-z]{2,5}\)"),
    ({"structured_outputs": {"json": json.dumps({"const": [1, None]}), "disable_any_whitespace": True}}, r"\[1,null\]"),
    ({"guided_json": {"type": "boolean"}, "guided_whitespace_pattern": " "}, "true|false"),
]


@pytest.mark.parametrize(("body", "pattern"), FORMS)
def test_every_form_is_held(server: Served, body: dict[str, Any], pattern: str) -> None:
    for seed in range(3):
        text = text_of(ask(server, **body, temperature=2.0, seed=seed))
        assert re.fullmatch(pattern, text), text


def test_json_object_begins_as_one(server: Served) -> None:
    answer = ask(server, response_format={"type": "json_object"}, temperature=0)
    assert answer.json()["choices"][0]["message"]["content"].startswith("{")


def test_white_space_is_bounded(server: Served) -> None:
    """A bias towards white space that would never end without the bound."""
    blanks = server.service.tokenizer
    bias = {str(blanks.encode(text, False)[0]): 100 for text in ("\n", "\t", "  ", " ", "\n\n")}
    body = {"response_format": json_schema({"type": "array", "items": {"const": 1}, "maxItems": 2}), "logit_bias": bias}
    text = text_of(ask(server, **body, temperature=0, max_tokens=400))
    assert json.loads(text) in ([], [1], [1, 1])
    assert re.search(r"\s\s", text)
    assert not re.search(r"\n\s*\n| {3}", text)


def test_text_around_a_structural_tag_is_free(server: Served) -> None:
    tag = {"begin": "<f=go>", "schema": {"const": {"x": 1}}, "end": "</f>"}
    body = {"response_format": {"type": "structural_tag", "structures": [tag], "triggers": ["<f="]}}
    answer = ask(server, **body, temperature=0)
    assert answer.status == 200
    text = answer.json()["choices"][0]["message"]["content"]
    plain = ask(server, temperature=0).json()["choices"][0]["message"]["content"]
    assert text == plain  # nothing triggers it, so nothing is held


def test_logprobs_are_those_of_the_model(server: Served) -> None:
    """They are taken before the mask, as vLLM takes them: the token that was drawn need not be among the likeliest."""
    body = {"structured_outputs": {"choice": ["zebra"]}, "logprobs": True, "top_logprobs": 3, "temperature": 0}
    entries = ask(server, **body).json()["choices"][0]["logprobs"]["content"]
    plain = ask(server, logprobs=True, top_logprobs=3, temperature=0).json()["choices"][0]["logprobs"]["content"]
    assert entries[0]["top_logprobs"] == plain[0]["top_logprobs"]
    assert entries[0]["logprob"] < plain[0]["logprob"]


def test_a_stop_string_still_cuts(server: Served) -> None:
    answer = ask(server, structured_outputs={"choice": ["zebra"]}, stop=["br"])
    assert text_of(answer) == "ze"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": json_schema({"type": "strng"})}, "response_format", "#/type"),
    (
        {"response_format": json_schema({"properties": {"a": {"not": {}}}})},
        "response_format",
        "not at #/properties/a/not",
    ),
    ({"response_format": json_schema({"items": {"uniqueItems": True}})}, "response_format", "#/items/uniqueItems"),
    ({"response_format": json_schema({"$ref": "https://example.org/x"})}, "response_format", "#/$ref"),
    (
        {"response_format": json_schema({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"uniqueItems": True}}})},
        "response_format",
        "#/$defs/a~1b/uniqueItems",
    ),
    ({"response_format": json_schema({"pattern": "("})}, "response_format", "regex"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "schema"),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "schema"),
    ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs", "exactly one"),
    ({"structured_outputs": {"jsn": {}}}, "structured_outputs.jsn", "json"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs", "choice"),
    ({"structured_outputs": {"grammar": "start: nobody"}}, "structured_outputs", "nobody"),
    ({"structured_outputs": {"grammar": "root ::= ("}}, "structured_outputs", "EBNF"),
    ({"guided_json": {}, "guided_regex": "a"}, "guided_regex", "two forms"),
    ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "guided_json"),
    ({"guided_choice": ["a"], "ignore_eos": True}, "ignore_eos", "contradicts"),
    ({"guided_choice": ["a"], "min_tokens": 3}, "min_tokens", "contradicts"),
]


@pytest.mark.parametrize(("body", "param", "said"), REFUSED)
def test_what_cannot_be_held_is_refused_by_name(server: Served, body: dict[str, Any], param: str, said: str) -> None:
    answer = ask(server, **body)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param
    assert said in answer.error["message"]


def test_a_text_format_asks_for_nothing(server: Served) -> None:
    assert ask(server, response_format={"type": "text"}).status == 200


def test_an_engine_without_grammars_says_so() -> None:
    with served() as fake:
        fake.engine.grammars = None
        answer = fake.chat(response_format={"type": "json_object"})
        assert answer.status == 400
        assert "grammars" in answer.error["message"]


TOOL = {
    "type": "function",
    "function": {
        "name": "set_size",
        "parameters": {
            "type": "object",
            "properties": {"size": {"type": "integer"}, "unit": {"enum": ["m", "km"]}},
            "required": ["size", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "set_size"}}])
def test_a_required_call_is_made_and_fits_its_schema(server: Served, choice: Any) -> None:
    for seed in range(4):
        answer = ask(server, tools=[TOOL], tool_choice=choice, temperature=2.0, seed=seed, parallel_tool_calls=False)
        assert answer.status == 200, answer.body
        told = answer.json()["choices"][0]
        if told["finish_reason"] == "length":
            continue
        assert told["finish_reason"] == "tool_calls"
        (call,) = told["message"]["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert isinstance(arguments["size"], int)
        assert arguments["unit"] in ("m", "km")


def test_a_form_and_tools_hold_together(server: Served) -> None:
    body = {"tools": [TOOL], "response_format": json_schema({"enum": ["red", "blue"]}), "temperature": 2.0}
    for seed in range(4):
        message = ask(server, **body, seed=seed).json()["choices"][0]["message"]
        assert message.get("tool_calls") or json.loads(message["content"]) in ("red", "blue")
