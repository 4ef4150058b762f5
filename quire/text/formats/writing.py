"""Calls and reasoning as a dialect writes them: what a template should render, and what a parser must read back.

Knows: descriptions. Does not know: templates, prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from quire.text.formats.dialect import Calls, Channels, Format, Keywords, Maybe, Parameter, Part
from quire.text.formats.literals import as_json
from quire.text.formats.said import Call


def answer_text(form: Format, calls: Sequence[Call] = (), content: str = "", thought: str = "") -> str:
    """A whole answer."""
    if form.channels is not None:
        return _messages(form.channels, calls, content, thought)
    text = content
    if form.reasoning is not None and thought:
        mark = form.reasoning
        text = f"{mark.opens}{mark.pad}{thought}{mark.pad}{mark.closes}{mark.gap}{content}"
    if form.calls is None or not calls:
        return text
    gap = "\n" if content and not form.calls.bare else ""
    return text + gap + calls_text(form.calls, calls)


def calls_text(form: Calls, calls: Sequence[Call]) -> str:
    """The calls of one message, with what stands around them."""
    begin = "" if form.bare else form.begin
    written = form.between.join([_call(form, call, number) for number, call in enumerate(calls)])
    return f"{begin}{form.open}{written}{form.shut}{form.end}"


def _call(form: Calls, call: Call, number: int) -> str:
    flat = [inner for part in form.call for inner in _written(part, call)]
    return "".join([part if isinstance(part, str) else _part(form, part, call, number) for part in flat])


def _written(part: str | Part | Maybe, call: Call) -> tuple[str | Part, ...]:
    if not isinstance(part, Maybe):
        return (part,)
    return part.parts if part.written and (call.id or Part.ID not in part.parts) else ()


def _part(form: Calls, part: Part, call: Call, number: int) -> str:
    match part:
        case Part.NAME:
            return call.name
        case Part.NUMBER:
            return str(number)
        case Part.ID:
            return call.id
        case Part.JSON:
            return call.arguments
        case Part.OBJECT:
            return f'{{"{form.keys[0]}": {as_json(call.name)}, "{form.keys[1]}": {call.arguments}}}'
        case Part.PARAMETERS if form.parameter is not None:
            return _parameters(form.parameter, call)
        case Part.KEYWORDS if form.keywords is not None:
            return _keywords(form.keywords, call)
    return ""


def _parameters(form: Parameter, call: Call) -> str:
    parts = []
    for key, value in json.loads(call.arguments).items():
        text = value if isinstance(value, str) else as_json(value)
        parts.append(f"{form.before}{key}{form.middle}{form.pad}{text}{form.pad}{form.after}")
    return "".join(parts)


def _keywords(form: Keywords, call: Call) -> str:
    pairs = [f"{key}{form.assign}{_literal(value, form)}" for key, value in json.loads(call.arguments).items()]
    return form.open + (", " if form.escapes else ",").join(pairs) + form.close


def _literal(value: object, form: Keywords) -> str:
    comma = ", " if form.escapes else ","
    if isinstance(value, str):
        return as_json(value) if form.escapes else f"{form.quotes[0]}{value}{form.quotes[0]}"
    if isinstance(value, list):
        return f"[{comma.join([_literal(each, form) for each in value])}]"
    if isinstance(value, dict):
        pairs = [(as_json(key) + ": " if form.escapes else key + ":") + _literal(value[key], form) for key in value]
        return f"{{{comma.join(pairs)}}}"
    return repr(value) if form.escapes else as_json(value)


def _messages(form: Channels, calls: Sequence[Call], content: str, thought: str) -> str:
    parts = [f"{form.channel}{form.thought}{form.message}{thought}{form.ends[0]}"] if thought else []
    if content:
        channel = form.content[-1] if calls else form.content[0]
        parts.append(f"{form.channel}{channel}{form.message}{content}{form.ends[0] if calls else form.ends[1]}")
    for call in calls:
        header = f"{form.channel}{form.call} to={form.prefix}{call.name} {form.constrain}json{form.message}"
        parts.append(f"{header}{call.arguments}{form.call_end}")
    return f"{form.start}assistant".join(parts)
