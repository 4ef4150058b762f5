"""Conversations that chat templates are tried on. Knows: OpenAI's messages. Does not know: any template."""

from __future__ import annotations

from typing import Any

Conversation = dict[str, Any]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def call(name: str, arguments: Any, identity: str = "abcdef123") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: Any, identity: str = "abcdef123") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "name": "get_weather", "content": content}


SYSTEM = {"role": "system", "content": "You are <b>terse</b> & kind."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather at a place. "Quoted" <tag> & ünïcode 天气',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "deep": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}, "required": ["x"]},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object"}}},
]
DOCUMENTS = [{"title": "On cats", "text": "Cats sleep.", "doc_id": 1}]
PARTS = [{"type": "text", "text": "First part."}, {"type": "text", "text": "Second  part"}]
WEATHER = call("get_weather", {"city": "Zürich", "days": [1, 2]})

MESSAGES: dict[str, list[dict[str, Any]]] = {
    "user": [user("Hello there")],
    "system": [SYSTEM, user("Hi")],
    "turns": [SYSTEM, user("1+1?"), assistant("2"), user(" and 2+2? \n")],
    "unicode": [user("Grüße 日本語 🦙 ‮rtl‬ \u00a0 e\u0301 <|im_end|> {{ 7*7 }} {% raw %}")],
    "empty": [user("")],
    "two users": [user("a"), user("b")],
    "ends with assistant": [user("a"), assistant("So it")],
    "thinking": [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c")],
    "reasoning": [user("a"), assistant("b", reasoning_content="because"), user("c")],
    "null content": [user("a"), assistant(None, tool_calls=[WEATHER]), result("12 °C"), user("thanks")],
    "tool call": [SYSTEM, user("w?"), assistant("", tool_calls=[WEATHER]), result('{"t": 12}')],
    "argument text": [user("w?"), assistant("", tool_calls=[call("get_weather", '{"city": "Bern"}')]), result("x")],
    "two calls": [
        user("w?"),
        assistant("Let me look.", tool_calls=[WEATHER, call("now", {}, "abcdef124")]),
        result("12"),
        result("noon", "abcdef124"),
        assistant("12 at noon"),
        user("ok"),
    ],
    "developer": [{"role": "developer", "content": "Be brief"}, user("Hi")],
    "strange role": [{"role": "wizard", "content": "Abracadabra"}],
    "no content": [{"role": "user"}],
    "late system": [user("a"), assistant("b"), SYSTEM, user("c")],
}

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no prompt": {"add_generation_prompt": False},
    "tools": {"tools": TOOLS},
    "documents": {"documents": DOCUMENTS},
    "no thinking": {"kwargs": {"enable_thinking": False, "thinking": False}},
    "thinking": {"kwargs": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}},
    "llama": {"tools": TOOLS, "kwargs": {"date_string": "1 Jan 2030", "tools_in_user_message": False}},
}
