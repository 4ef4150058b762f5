"""Tools over HTTP: calls in whole and streamed answers, for the bundled template and for others; what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import NOW, TOKENIZER, Served, says, served

from quire.text.template import ChatTemplate

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Weather in Bern and Zürich?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
FIRST = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich 🦊", "days": 2}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
CALLS = [("get_weather", {"city": "Zürich 🦊", "days": 2}), ("now", {})]


@pytest.fixture(scope="module")
def caller() -> Iterator[Served]:
    """Says something, then calls two tools."""
    with served(says(f"Let me look.\n{FIRST}\n{SECOND}")) as server:
        yield server


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]


def streamed(events: list[Any]) -> dict[str, Any]:
    """The first choice of a stream, put together as OpenAI's clients do it."""
    assert events[-1] == "[DONE]"
    message: dict[str, Any] = {"content": "", "tool_calls": [], "reasoning_content": "", "finish": None}
    for event in events[:-1]:
        for choice in event["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content", "")
            message["reasoning_content"] += delta.get("reasoning_content", "")
            assert delta.get("reasoning") == delta.get("reasoning_content")
            for part in delta.get("tool_calls", []):
                if part["index"] == len(message["tool_calls"]):
                    assert part["type"] == "function"
                    message["tool_calls"].append(
                        {"id": part["id"], "function": {"name": part["function"]["name"], "arguments": ""}}
                    )
                else:
                    assert part["index"] == len(message["tool_calls"]) - 1
                    assert {"id", "type"}.isdisjoint(part)
                    assert "name" not in part["function"]
                message["tool_calls"][-1]["function"]["arguments"] += part["function"]["arguments"]
            message["finish"] = choice["finish_reason"]
    return message


def test_a_whole_answer_with_calls(caller: Served) -> None:
    choice = caller.post(CHAT, {"messages": HI, "tools": TOOLS}).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me look."
    assert calls_of(choice["message"]) == CALLS
    ids = [call["id"] for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(
        each.startswith("call_") and call["type"] == "function"
        for each, call in zip(ids, choice["message"]["tool_calls"], strict=True)
    )


def test_the_stream_says_the_same_in_pieces(caller: Served) -> None:
    events = caller.post(CHAT, {"messages": HI, "tools": TOOLS, "stream": True}).events()
    message = streamed(events)
    assert message["finish"] == "tool_calls"
    assert message["content"] == "Let me look."
    assert calls_of(message) == CALLS
    pieces = [part for event in events[:-1] for part in event["choices"][0]["delta"].get("tool_calls", [])]
    assert len(pieces) > 6
    assert all("<tool_call>" not in event["choices"][0]["delta"].get("content", "") for event in events[:-1])


def test_without_tools_the_same_text_is_content(caller: Served) -> None:
    for body in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        message = caller.post(CHAT, {"messages": HI, **body}).json()["choices"][0]["message"]
        assert message["content"] == f"Let me look.\n{FIRST}\n{SECOND}"
        assert "tool_calls" not in message


def test_one_call_alone_ends_the_answer() -> None:
    with served(says(f"{FIRST}\n{SECOND}" * 20, end=False)) as server:
        server.runner.pace_s = 0.002
        body = {"messages": HI, "tools": TOOLS, "parallel_tool_calls": False, "max_tokens": 300}
        answer = server.post(CHAT, body).json()
        choice = answer["choices"][0]
        assert calls_of(choice["message"]) == CALLS[:1]
        assert choice["message"]["content"] is None
        assert choice["finish_reason"] == "tool_calls"
        assert answer["usage"]["completion_tokens"] <= len(TOKENIZER.encode(FIRST, False)) + 1
        server.chat(max_tokens=1)
        assert server.is_idle()


def test_a_call_that_is_cut_off_ends_with_length() -> None:
    with served(says(FIRST)) as server:
        choice = server.post(CHAT, {"messages": HI, "tools": TOOLS, "max_tokens": 20}).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        text = choice["message"]["tool_calls"][0]["function"]["arguments"]
        assert json.dumps(CALLS[0][1], ensure_ascii=False).startswith(text)


def test_what_is_no_call_stays_text_without_its_marks() -> None:
    with served(says('<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>')) as server:
        choice = server.post(CHAT, {"messages": HI, "tools": TOOLS}).json()["choices"][0]
        assert choice["message"]["content"] == '{"name": "unknown", "arguments": {}}'
        assert choice["finish_reason"] == "stop"


def test_logprobs_list_every_token_of_a_call(caller: Served) -> None:
    body = {"messages": HI, "tools": TOOLS, "logprobs": True, "n": 2}
    whole = caller.post(CHAT, body).json()
    events = caller.post(CHAT, {**body, "stream": True}).events()
    for choice in whole["choices"]:
        assert len(choice["logprobs"]["content"]) * 2 == whole["usage"]["completion_tokens"]
        told = [each for event in events[:-1] for each in event["choices"] if each["index"] == choice["index"]]
        entries = [entry for each in told if each["logprobs"] for entry in each["logprobs"]["content"]]
        assert [entry["token"] for entry in entries] == [entry["token"] for entry in choice["logprobs"]["content"]]


def test_the_model_is_shown_the_tools_and_earlier_calls(caller: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    turns = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    shown = caller.post(CHAT + "/render", {"messages": turns, "tools": TOOLS}).json()
    assert '"get_weather"' in shown["prompt"]
    assert "<tool_response>\nnoon\n</tool_response>" in shown["prompt"]
    assert (
        '"get_weather"'
        not in caller.post(CHAT + "/render", {"messages": turns, "tools": TOOLS, "tool_choice": "none"}).json()[
            "prompt"
        ]
    )
    tokens = caller.post("/tokenize", {"messages": turns, "tools": TOOLS}).json()["tokens"]
    assert tokens == shown["token_ids"]


def test_templates_with_ids_of_their_own(shared_data: Path) -> None:
    text = {
        name: (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
        for name in ("moonshotai-Kimi-K2", "mistralai-Mistral-Nemo-Instruct-2407")
    }
    call = "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
    listed = '[TOOL_CALLS][{"name": "now", "arguments": {}}]'
    for name, answer in zip(text, (call, listed), strict=True):
        template = ChatTemplate({"default": text[name]}, {"bos_token": "", "eos_token": ""}, NOW)
        tools = [{"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object"}}}]
        with served(says(answer), template=template) as server:
            message = server.post(CHAT, {"messages": HI, "tools": tools}).json()["choices"][0]["message"]
            (made,) = message["tool_calls"]
            assert made["id"] == "functions.now:0" if "Kimi" in name else len(made["id"]) == 9
            turns = [*HI, message, {"role": "tool", "tool_call_id": made["id"], "content": "noon"}]
            assert server.post(CHAT, {"messages": turns, "tools": tools}).status == 200


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": fields}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (function(name="a b"), "tools[0].function.name"),
        (function(name="x" * 65), "tools[0].function.name"),
        (function(name="f", parameters=[]), "tools[0].function.parameters"),
        (function(name="f", strict=1), "tools[0].function.strict"),
        (function(name="f", describtion=""), "tools[0].function.describtion"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": TOOLS[:1] * 2}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)  # fmt: skip
def test_tools_that_are_refused(caller: Served, body: dict[str, Any], param: str) -> None:
    answer = caller.post(CHAT, {"messages": HI, **body})
    assert answer.status == 400
    assert answer.error["param"] == param


def test_a_template_without_tools_says_so() -> None:
    template = ChatTemplate({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {}, NOW)
    with served(template=template) as server:
        answer = server.post(CHAT, {"messages": HI, "tools": TOOLS})
        assert answer.status == 400
        assert "--tool-format" in answer.error["message"]


def test_allowed_tools_are_shown_all_and_called_in_part(caller: Served) -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
    }
    message = caller.post(CHAT, {"messages": HI, "tools": TOOLS, "tool_choice": choice}).json()["choices"][0]["message"]
    assert calls_of(message) == CALLS[1:]
    assert "get_weather" in message["content"]
