"""Calls that are held by masks, end to end: whatever the bundled model would say, and however hot it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from served import NOW, TOKENIZER, Served, served
from test_tools import calls_of, streamed

from quire.engine.grammars import ThreadKeeper
from quire.server.speech import Spoken
from quire.text.formats.detect import Detected
from quire.text.formats.dialect import Format, Reasoning
from quire.text.template import ChatTemplate

CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
SUM = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 999}, "exact": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}},
    {"type": "function", "function": {"name": "add.up", "parameters": SUM}},
    {"type": "function", "function": {"name": "now"}},
]
BODY = {"messages": [{"role": "user", "content": "Sing me a song."}], "tools": TOOLS, "max_tokens": 150}
# What the bundled model knows nothing of: the grammar alone has to hold it.
DIALECTS = [
    "glm", "qwen3_coder", "mistral", "pythonic", "llama3", "deepseek_v31", "kimi_k2", "gemma4", "minimax",
]  # fmt: skip


@pytest.fixture(scope="module")
def held() -> Iterator[Served]:
    with served(keep=ThreadKeeper) as server:
        yield server


def check(calls: list[tuple[str, Any]]) -> None:
    for name, arguments in calls:
        if name == "get_weather":
            assert set(arguments) == {"city", "unit"}
            assert len(arguments["city"]) <= 12
            assert arguments["unit"] in ("celsius", "fahrenheit")
        elif name == "add.up":
            assert {"a"} <= set(arguments) <= {"a", "exact"}
            assert type(arguments["a"]) is int
        else:
            assert (name, arguments) == ("now", {})


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("stream", [False, True])
def test_required_is_a_call_whatever_is_asked(held: Served, temperature: float, stream: bool) -> None:
    num_ended = 0
    for seed in range(6):
        body = {"tool_choice": "required", "temperature": temperature, "seed": seed, "stream": stream, "n": 2}
        answer = held.post(CHAT, {**BODY, **body})
        assert answer.status == 200, answer.body
        if stream:
            message = streamed([e for e in answer.events() if e == "[DONE]" or e["choices"][0]["index"] == 0])
            choices = [{"message": message, "finish_reason": message["finish"]}]
        else:
            choices = answer.json()["choices"]
        for choice in choices:
            assert not choice["message"]["content"]
            if choice["finish_reason"] == "tool_calls":
                num_ended += 1
                check(calls_of(choice["message"]))
    assert num_ended >= 6 * len(choices) // 2


@pytest.mark.parametrize("name", ["get_weather", "add.up", "now"])
def test_a_named_call_is_that_call_once(held: Served, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    for temperature in (0.0, 1.5):
        body = {**BODY, "tool_choice": choice, "temperature": temperature, "seed": 3}
        (call,) = calls_of(held.post(CHAT, body).json()["choices"][0]["message"])
        assert call[0] == name
        check([call])


def test_strict_tools_leave_text_free(held: Served) -> None:
    for seed in range(4):
        answer = held.post(CHAT, {**BODY, "temperature": 1.0, "seed": seed}).json()
        message = answer["choices"][0]["message"]
        check(calls_of({"tool_calls": [], **message}) if answer["choices"][0]["finish_reason"] != "length" else [])
        assert message["content"] or message["tool_calls"]


@pytest.mark.parametrize("form", DIALECTS)
def test_every_dialect_is_held(form: str) -> None:
    with served(keep=ThreadKeeper, tool_format=form) as server:
        for seed in range(3):
            body = {"tool_choice": "required", "temperature": 1.0, "seed": seed, "parallel_tool_calls": False}
            choice = server.post(CHAT, {**BODY, **body}).json()["choices"][0]
            if choice["finish_reason"] == "tool_calls":
                check(calls_of(choice["message"]))
            assert not choice["message"]["content"]


def test_content_of_a_schema_stands_beside_tools(held: Served) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}}}
    for seed in range(4):
        body = {**BODY, "response_format": form, "temperature": 1.0, "seed": seed}
        message = held.post(CHAT, body).json()["choices"][0]["message"]
        if message["content"]:
            assert set(json.loads(message["content"])) == {"ok"}
        else:
            check(calls_of(message))


THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_start|>assistant\n<think>\n"


def test_where_the_end_of_reasoning_is_no_token_it_cannot_be_forced() -> None:
    template = ChatTemplate({"default": THINKS}, {"bos_token": "", "eos_token": ""}, NOW)
    with served(keep=ThreadKeeper, template=template) as server:
        error = server.post(CHAT, {"messages": BODY["messages"], "thinking_token_budget": 4}).error
        assert error["param"] == "thinking_token_budget"


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_a_budget_of_reasoning_is_held(budget: int) -> None:
    """The marks of calls, which are tokens of the bundled vocabulary, stand in for those of reasoning."""
    marks = Reasoning("stand-in", "<tool_call>", "</tool_call>")
    source = THINKS.replace("<think>", marks.opens)
    template = ChatTemplate({"default": source}, {"bos_token": "", "eos_token": ""}, NOW)
    with served(keep=ThreadKeeper, template=template) as server:
        spoken = Spoken(Detected(Format(reasoning=marks)), {}, TOKENIZER.id_of(marks.closes))
        object.__setattr__(server.service, "spoken", spoken)
        body = {"messages": BODY["messages"], "thinking_token_budget": budget, "max_tokens": 30}
        for seed in range(5):
            answer = server.post(CHAT, {**body, "temperature": 1.5, "seed": seed}).json()
            assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= budget + 1
            assert answer["usage"]["completion_tokens"] > budget + 1
            assert answer["choices"][0]["message"]["content"]
        free = server.post(CHAT, {**body, "thinking_token_budget": None}).json()
        assert free["usage"]["completion_tokens_details"]["reasoning_tokens"] > budget + 1


def test_what_cannot_be_held_is_refused_by_name(held: Served) -> None:
    tools = [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "wat"}}}},
        }
    ]
    answer = held.post(CHAT, {**BODY, "tools": tools, "tool_choice": "required"})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "tools", "invalid_grammar")
    assert held.post(CHAT, {**BODY, "tools": tools}).status == 200
    assert held.post(CHAT, {**BODY, "tool_choice": "required", "ignore_eos": True}).error["param"] == "ignore_eos"


def test_render_shows_the_grammar(held: Served) -> None:
    shown = held.post(f"{CHAT}/render", {**BODY, "tool_choice": "required"}).json()
    assert "get_weather" in shown["grammar"]
    assert held.post(f"{CHAT}/render", {**BODY, "tools": None}).json()["grammar"] is None
