"""`tools` and `tool_choice` of a body, checked: what the template is shown, and which calls may come back.

Knows: OpenAI's shapes (and `allowed_tools`). Does not know: dialects, prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quire.errors import RequestError, UnsupportedField
from quire.limits import MAX_DESCRIPTION_CHARACTERS, MAX_TOOL_NAME_CHARACTERS, MAX_TOOLS
from quire.server import fields
from quire.text.formats.grammar import Tool

NAME = re.compile(rf"[A-Za-z0-9_.\-]{{1,{MAX_TOOL_NAME_CHARACTERS}}}")
CHOICES = 'none, auto, required, or {"type": "function", "function": {"name": ...}}'

Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Calling:
    """What may be called. shown: tools as the template gets them, None for none. tools: those that may be called."""

    shown: tuple[dict[str, Any], ...] | None = None
    tools: tuple[Tool, ...] = ()
    choice: Choice = "none"
    is_many: bool = True


def read_calling(
    tools: Sequence[Mapping[str, object]] | None, choice: object, parallel: bool, warn: bool = False
) -> Calling:
    """Checked tools under a choice. Raises `RequestError` naming the place (`tools[2].function.name`).

    With "none" the model is not shown the tools at all.
    """
    if tools is not None and len(tools) > MAX_TOOLS:
        raise RequestError("too many tools", got=len(tools), allowed=f"at most {MAX_TOOLS}", param="tools")
    shown = tuple([_tool(tool, f"tools[{index}]", warn) for index, tool in enumerate(tools or ())])
    read = tuple([_read(tool["function"]) for tool in shown])
    names = [tool.name for tool in read]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError("two tools have one name", got=twice, param="tools")
    kind, allowed = _choice(choice, names)
    if kind == "none" or not shown:
        return Calling()
    named = isinstance(choice, Mapping) and choice.get("type") == "function"
    chosen = tuple([tool for tool in read if tool.name in allowed])
    return Calling(shown, chosen, kind, parallel and not named)


def _tool(tool: object, where: str, warn: bool) -> dict[str, Any]:
    """{type: "function", function: {name, description, parameters, strict}}; fresh, without nulls."""
    if not isinstance(tool, Mapping):
        raise RequestError("a tool is not an object", got=tool, param=where)
    kept = fields.implemented(tool, ("type", "function"), {}, where=f"{where}.", inert=frozenset(), warn=warn)
    if kept.get("type", "function") != "function":
        raise UnsupportedField(
            "this kind of tool is not implemented", got=kept["type"], allowed="function", param=f"{where}.type"
        )
    function = kept.get("function")
    if not isinstance(function, Mapping):
        raise RequestError("a tool has no function", got=function, param=f"{where}.function")
    names = ("name", "description", "parameters", "strict")
    inner = fields.implemented(function, names, {}, where=f"{where}.function.", inert=frozenset(), warn=warn)
    _check(inner, f"{where}.function")
    return {"type": "function", "function": inner}


def _check(function: Mapping[str, object], where: str) -> None:
    name, description = function.get("name"), function.get("description", "")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        allowed = f"1 to {MAX_TOOL_NAME_CHARACTERS} letters, digits, _, - or ."
        raise RequestError("a tool's name is not usable", got=name, allowed=allowed, param=f"{where}.name")
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION_CHARACTERS:
        allowed = f"a string of at most {MAX_DESCRIPTION_CHARACTERS} characters"
        raise RequestError("a tool's description is not usable", allowed=allowed, param=f"{where}.description")
    if not isinstance(function.get("parameters", {}), dict):
        raise RequestError(
            "a tool's parameters are not a JSON schema",
            got=function["parameters"],
            allowed='{"type": "object", "properties": {...}}',
            param=f"{where}.parameters",
        )
    if not isinstance(function.get("strict", False), bool):
        raise RequestError("strict is neither true nor false", got=function["strict"], param=f"{where}.strict")


def _read(function: Mapping[str, Any]) -> Tool:
    return Tool(function["name"], function.get("parameters"), function.get("strict", False))


def _choice(choice: object, names: Sequence[str]) -> tuple[Choice, frozenset[str]]:
    """What is asked for, and the names that may be called."""
    if choice is None:
        return "auto", frozenset(names)
    if isinstance(choice, str) and choice in ("none", "auto"):
        return ("none" if choice == "none" else "auto"), frozenset(names)
    if choice == "required":
        return "required", _known(names, names)
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if isinstance(choice, Mapping) and kind == "function" and set(choice) == {"type", "function"}:
        return "required", _known([_name_in(choice)], names)
    inner = choice.get("allowed_tools") if isinstance(choice, Mapping) and kind == "allowed_tools" else None
    if (
        isinstance(inner, Mapping)
        and isinstance(inner.get("tools"), list)
        and inner.get("mode") in ("auto", "required")
    ):
        allowed = _known([_name_in(each) for each in inner["tools"]], names)
        return ("required" if inner["mode"] == "required" else "auto"), allowed
    raise RequestError("tool_choice is not usable", got=choice, allowed=CHOICES, param="tool_choice")


def _name_in(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError("tool_choice names no function", got=choice, allowed=CHOICES, param="tool_choice")
    return name


def _known(wanted: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    if missing := next((name for name in wanted if name not in names), None):
        raise RequestError("tool_choice names a tool that is not there", got=missing, param="tool_choice")
    if not wanted:
        raise RequestError("tool_choice asks for a call, but there are no tools", param="tool_choice")
    return frozenset(wanted)
