"""Chat messages as templates want to see them: plain data, no nulls, text parts joined where parts are not understood.

Knows: the shape of OpenAI's messages. Does not know: Jinja2, HTTP, ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quire.errors import RequestError

Message = Mapping[str, Any]
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


def prepare(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Fresh copies of plain data, as transformers hands them to a template.

    Null fields are dropped (OpenAI clients send `content: null`), and reasoning is given under both names in use.
    """
    if not messages:
        raise RequestError("messages is empty", allowed="at least one message", param="messages")
    return [_prepare_one(message, f"messages[{index}]") for index, message in enumerate(messages)]


def parse_arguments(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages with each `tool_calls[].function.arguments` as an object instead of JSON text.

    OpenAI writes arguments as text, nearly every template expects the object; text that is no JSON object is refused.
    """
    return [
        {**message, "tool_calls": [_parse_call(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def plain(value: Any, param: str) -> Any:
    """A deep copy made of JSON's types only, so that a template meets no object with methods of its own."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, param) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, param) for item in value]
    raise RequestError(f"{param} holds something that is not JSON", got=type(value).__name__, param=param)


def join_parts(parts: Iterable[Any], param: str) -> str:
    """The texts of content parts, one per line; a part that is no text is refused."""
    texts = []
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RequestError(f"{param} has a part without text", got=kind, allowed="parts of type text", param=param)
        texts.append(text)
    return "\n".join(texts)


def fit_content(messages: list[dict[str, Any]], takes_parts: frozenset[str], takes_text: frozenset[str]) -> None:
    """Changes `content` in place to the form that the template reads for the message's role."""
    for index, message in enumerate(messages):
        content, role = message.get("content"), message.get("role")
        if isinstance(content, list) and role not in takes_parts:
            message["content"] = join_parts(content, f"messages[{index}].content")
        elif isinstance(content, str) and role in takes_parts and role not in takes_text:
            message["content"] = [{"type": "text", "text": content}]


def _prepare_one(message: Message, param: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(f"{param} is not an object", got=type(message).__name__, param=param)
    kept = {key: plain(value, param) for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in REASONING_FIELDS if name in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _parse_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        what, got = "the arguments of a tool call are not a JSON object", function["arguments"]
        raise RequestError(what, got=got, param="messages")
    return {**call, "function": {**function, "arguments": arguments}}
