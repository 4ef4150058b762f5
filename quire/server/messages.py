"""Chat messages from a body, checked: roles, contents, tool calls. What comes out is what a template may see.

Knows: OpenAI's message shapes. Does not know: templates, ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.errors import RequestError, UnsupportedField
from quire.limits import MAX_ID_CHARACTERS, MAX_MESSAGES, MAX_PARTS, MAX_TOOL_CALLS
from quire.server import fields
from quire.text.messages import parse_arguments

ROLES = ("system", "developer", "user", "assistant", "tool")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "name", "tool_calls", "reasoning_content", "reasoning"),
    "tool": ("role", "content", "name", "tool_call_id"),
}
MEDIA = ("image_url", "input_audio", "audio_url", "video_url", "file", "image", "input_image")


def read_messages(messages: Sequence[Mapping[str, object]], warn: bool = False) -> list[dict[str, Any]]:
    """Checked copies, tool arguments parsed. Raises `RequestError` naming the place (`messages[2].content[0].type`)."""
    if not messages:
        raise RequestError("messages is empty", allowed="at least one message", param="messages")
    _few(messages, MAX_MESSAGES, "messages", "messages")
    return parse_arguments([_message(message, f"messages[{index}]", warn) for index, message in enumerate(messages)])


def _message(message: Mapping[str, object], where: str, warn: bool) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(
            "a message has no role that we know", got=role, allowed=", ".join(ROLES), param=f"{where}.role"
        )
    kept = fields.implemented(
        _without_empty_calls(message),
        FIELDS[role],
        fields.MESSAGE,
        inert=fields.MESSAGE_INERT,
        where=f"{where}.",
        warn=warn,
    )
    for name in ("reasoning_content", "reasoning"):
        _text(kept.get(name, ""), f"{where}.{name}")
    for name in ("name", "tool_call_id"):
        _id(kept.get(name, ""), f"{where}.{name}")
    if "tool_calls" in kept:
        kept["tool_calls"] = _tool_calls(kept["tool_calls"], f"{where}.tool_calls")
    if "content" not in kept and "tool_calls" not in kept:
        raise RequestError("a message has no content", allowed="a string or a list of parts", param=f"{where}.content")
    kept["content"] = _content(kept.get("content", ""), f"{where}.content", warn)
    return kept


def _without_empty_calls(message: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in message.items() if not (name == "tool_calls" and value == [])}


def _content(content: object, where: str, warn: bool) -> object:
    """A string, or a list of text parts; which of them a template wants is for the text room to find out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RequestError("content is neither text nor a list of parts", got=content, param=where)
    _few(content, MAX_PARTS, "content parts", where)
    return [_part(part, f"{where}[{index}]", warn) for index, part in enumerate(content)]


def _part(part: object, where: str, warn: bool) -> dict[str, object]:
    if not isinstance(part, dict):
        raise RequestError("a content part is not an object", got=part, param=where)
    kind = part.get("type")
    if kind in MEDIA:
        raise UnsupportedField(
            "this kind of content is not implemented", got=kind, allowed="text", hint=fields.NO_MEDIA,
            param=f"{where}.type",
        )  # fmt: skip
    if kind != "text":
        raise RequestError("a content part is of no known type", got=kind, allowed="text", param=f"{where}.type")
    inert = frozenset({"annotations", "cache_control", "prompt_cache_breakpoint"})
    kept = fields.implemented(part, ("type", "text"), {}, inert=inert, where=f"{where}.", warn=warn)
    if "text" not in kept:
        raise RequestError("a content part has no text", param=f"{where}.text")
    _text(kept["text"], f"{where}.text")
    return kept


def _tool_calls(calls: object, where: str) -> list[dict[str, object]]:
    if not isinstance(calls, list):
        raise RequestError("tool_calls is not a list", got=calls, param=where)
    _few(calls, MAX_TOOL_CALLS, "tool calls", where)
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: object, where: str) -> dict[str, object]:
    """{id, type: "function", function: {name, arguments}}; arguments is JSON text."""
    if not isinstance(call, dict):
        raise RequestError("a tool call is not an object", got=call, param=where)
    kept = fields.implemented(call, ("id", "type", "function"), {}, inert=frozenset({"index"}), where=f"{where}.")
    if kept.get("type", "function") != "function":
        raise UnsupportedField(
            "this kind of tool call is not implemented", got=kept["type"], allowed="function", param=f"{where}.type"
        )
    _id(kept.get("id", ""), f"{where}.id")
    function = kept.get("function")
    if not isinstance(function, dict):
        raise RequestError("a tool call has no function", got=function, param=f"{where}.function")
    inner = fields.implemented(function, ("name", "arguments"), {}, inert=frozenset(), where=f"{where}.function.")
    _text(inner.get("name"), f"{where}.function.name")
    _text(inner.setdefault("arguments", "{}"), f"{where}.function.arguments")
    return {**kept, "type": "function", "function": inner}


def _few(items: Sequence[object], most: int, what: str, where: str) -> None:
    if len(items) > most:
        raise RequestError(f"too many {what}", got=len(items), allowed=f"at most {most}", param=where)


def _id(value: object, where: str) -> None:
    _text(value, where)
    if isinstance(value, str) and len(value) > MAX_ID_CHARACTERS:
        allowed = f"at most {MAX_ID_CHARACTERS} characters"
        raise RequestError("a name or id is too long", got=f"{len(value)} characters", allowed=allowed, param=where)


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise RequestError("a string is expected", got=value, param=where)
