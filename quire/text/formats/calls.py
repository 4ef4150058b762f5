"""One tool call, or a list of them, read from a text by the description of its dialect.

A call is told as soon as it is certain that it is one: its name is a tool's, and its arguments begin. From there on
its arguments are told as they come; where they stop being what the dialect writes, the call ends as it is, with
arguments that are no whole JSON, and the text after that is content again. Before that, nothing is a call.

Knows: patterns and parts. Does not know: marks in content, reasoning, channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from quire.text.formats import json_text
from quire.text.formats.dialect import Calls, Maybe, Part, Pattern, chunks
from quire.text.formats.literals import as_json, literal_json, literal_text, typed, types_of
from quire.text.formats.said import CallPart
from quire.text.formats.source import Source, Wait

NAME = re.compile(r"[A-Za-z0-9_.\-]{0,128}")
NUMBER = re.compile(r"[0-9]{0,20}")
IDENTITY = re.compile(r"[A-Za-z0-9_\-]{0,128}")
MAX_KEY_CHARACTERS = 512
IGNORED_KEYS = frozenset({"id", "type", "tool_call_id"})

Tools = Mapping[str, Any]  # name to the JSON schema of its arguments


class CallReader:
    """Reads calls from `source`. `num_calls` have been told; `is_whole` says whether the last one came to its end."""

    def __init__(self, calls: Calls, tools: Tools, source: Source, tell: Callable[[CallPart], None]) -> None:
        self._calls, self._tools, self._source, self._tell = calls, tools, source, tell
        self.num_calls = 0
        self.is_whole = False
        self._restart()

    def section(self) -> Wait[None]:
        """A call, or the list of calls behind a mark. Takes nothing if there is none; content goes on after it."""
        self._source.keep()
        if not self._calls.is_list:
            yield from self._one()
            return
        yield from self._source.space()
        opened = yield from self._source.loose(self._calls.open.strip())
        if not opened and self._calls.bare:
            self._source.restore()
            return
        goes_on = yield from self._one()
        while goes_on:
            self._source.keep()
            goes_on = (yield from self._next()) and (yield from self._one())
            self._source.restore()
        if opened and self.is_whole and self._calls.shut:
            yield from self._source.loose(" " + self._calls.shut.strip())

    def _next(self) -> Wait[bool]:
        yield from self._source.space()
        return (yield from self._source.literal(self._calls.between.strip()))

    def _one(self) -> Wait[bool]:
        """One whole call. Of what is no call at all nothing is taken since `keep`."""
        self._restart()
        yield from self._source.space()
        is_whole = yield from self._pattern(self._calls.call)
        if self._begun:
            self.is_whole = is_whole
        else:
            self._source.restore()
        return is_whole

    def _restart(self) -> None:
        self._name = self._id = ""
        self._begun = self._seen = False  # the call is told; an OBJECT has had its arguments
        self._early: list[str] = []  # an OBJECT's arguments that came before its name

    def _pattern(self, pattern: Pattern) -> Wait[bool]:
        for place, part in enumerate(pattern):
            if isinstance(part, Part) and part not in _SMALL:
                return (yield from self._arguments(part, pattern[place + 1 :]))
            if isinstance(part, Maybe):
                yield from self._pattern(part.parts)
            elif isinstance(part, str):
                if not (yield from self._source.loose(part)):
                    return False
            elif not (yield from self._small(part)):
                return False
        return True

    def _small(self, part: Part) -> Wait[bool]:
        found = yield from self._source.run(_SMALL[part])
        if part is Part.NAME:
            self._name = found
        else:
            self._id = f"functions.{self._name}:{found}" if part is Part.NUMBER else found
        return bool(found)

    def _arguments(self, part: Part, tail: Pattern) -> Wait[bool]:
        """The arguments, and after them as much of `tail` as is there."""
        if part is Part.JSON:
            is_whole = yield from self._json()
        elif part is Part.OBJECT:
            is_whole = yield from self._object()
        elif part is Part.PARAMETERS:
            end, *rest = chunks(str(tail[0]))
            tail = ("".join(rest), *tail[1:])
            is_whole = yield from self._parameters(end)
        else:
            is_whole = yield from self._keywords()
        for text in tail if is_whole else ():
            if not (yield from self._source.loose(str(text))):
                break
        return is_whole

    def _begin(self, arguments: str = "") -> bool:
        """Tell the call and what is known of its arguments, if it is a call."""
        if self._name not in self._tools:
            return False
        self._source.settle()
        self._begun = True
        self._tell(CallPart(self.num_calls, name=self._name, id=self._id))
        self.num_calls += 1
        if arguments:
            self._more(arguments)
        return True

    def _more(self, text: str) -> None:
        self._tell(CallPart(self.num_calls - 1, text))

    def _json(self) -> Wait[bool]:
        yield from self._source.space()
        is_object = (yield from self._source.character()) == "{"
        return is_object and self._begin() and (yield from json_text.value(self._source, self._more))

    def _object(self) -> Wait[bool]:
        """{"name": ..., "arguments": {...}} in either order. Arguments that come first wait for the name."""
        if not (yield from self._source.loose("{")):
            return False
        while True:
            yield from self._source.space()
            key = yield from json_text.string(self._source)
            if key is None or not (yield from self._source.loose(" : ")):
                return False
            if not (yield from self._entry(key)):
                return False
            yield from self._source.space()
            if (yield from self._source.literal(",")):
                continue
            if not (yield from self._source.literal("}")):
                return False
            return self._begun or self._begin("{}")

    def _entry(self, key: str) -> Wait[bool]:
        name_key, *argument_keys = self._calls.keys
        if key == name_key and not self._name:
            self._name = (yield from json_text.string(self._source)) or ""
            return self._begin("".join(self._early)) if self._early else self._name in self._tools
        if key in argument_keys and not self._seen:
            self._seen = True
            return (yield from self._entry_arguments())
        return (self._begun or key in IGNORED_KEYS) and (yield from json_text.value(self._source, _ignore))

    def _entry_arguments(self) -> Wait[bool]:
        character = yield from self._source.character()
        if character == "{" and self._name:
            return self._begin() and (yield from json_text.value(self._source, self._more))
        if character == "{":
            return (yield from json_text.value(self._source, self._early.append))
        text: str | None = "{}"
        if character == '"':  # JSON inside a string: some models write it twice over
            text = yield from json_text.string(self._source)
        elif not (yield from self._source.literal("null")):
            return False
        if text is None or not json_text.is_object(text):
            return False
        self._early.append(text)
        return self._begin(text) if self._name else True

    def _parameters(self, end: str) -> Wait[bool]:
        """Arguments between marks, until `end`."""
        parameter = self._calls.parameter
        if parameter is None or not self._begin():
            return False
        opener = "{"
        while True:
            yield from self._source.space()
            if (yield from self._source.literal(end)):
                self._more("{}" if opener == "{" else "}")
                return True
            key_parts: list[str] = []
            stop, *rest = chunks(parameter.middle)
            if not (yield from self._source.loose(parameter.before)):
                return False
            if not (yield from self._source.until(stop, key_parts.append, MAX_KEY_CHARACTERS)):
                return False
            if not (yield from self._source.loose("".join(rest))):
                return False
            key = "".join(key_parts)
            self._more(f"{opener}{as_json(key)}: ")
            opener = ", "
            if not (yield from self._parameter_value(key, chunks(parameter.after)[0], parameter.pad)):
                return False

    def _parameter_value(self, key: str, stop: str, pad: str) -> Wait[bool]:
        schema = self._property(key)
        if types_of(schema) == {"string"}:
            inner = _Padded(pad, lambda text: self._more(as_json(text)[1:-1]))
            self._more('"')
            if (yield from self._source.until(stop, inner.push)):
                self._more('"')
                return True
            return False
        parts: list[str] = []
        inner = _Padded(pad, parts.append)
        found = yield from self._source.until(stop, inner.push)
        if found:
            self._more(typed("".join(parts), schema))
        return found

    def _property(self, key: str) -> Any:
        schema = self._tools.get(self._name)
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        return properties.get(key) if isinstance(properties, Mapping) else None

    def _keywords(self) -> Wait[bool]:
        """key=literal pairs between brackets."""
        keywords = self._calls.keywords
        if keywords is None or not (yield from self._source.loose(keywords.open)) or not self._begin():
            return False
        opener = "{"
        while True:
            yield from self._source.space()
            if (yield from self._source.literal(keywords.close)):
                self._more("{}" if opener == "{" else "}")
                return True
            key = yield from self._source.run(_KEY)
            yield from self._source.space()
            if not key or not (yield from self._source.literal(keywords.assign)):
                return False
            text = yield from literal_text(self._source, keywords)
            value = None if text is None else literal_json(text, keywords)
            if value is None:
                return False
            self._more(f"{opener}{json.dumps(key)}: {value}")
            opener = ", "
            yield from self._source.literal(",")


class _Padded:
    """Passes a text on without the one `pad` at its start and the one at its end."""

    def __init__(self, pad: str, tell: Callable[[str], None]) -> None:
        self._pad, self._tell, self._held, self._is_first = pad, tell, "", True

    def push(self, text: str) -> None:
        """Take in some text, not empty."""
        if self._pad and self._is_first:
            text = text.removeprefix(self._pad)
        self._is_first = False
        text = self._held + text
        self._held = self._pad if self._pad and text.endswith(self._pad) else ""
        if text := text.removesuffix(self._held):
            self._tell(text)


def _ignore(text: str) -> None:
    """Text that nobody needs."""


_SMALL = {Part.NAME: NAME, Part.NUMBER: NUMBER, Part.ID: IDENTITY}
_KEY = re.compile(r"[^\s=:,(){}\[\]\"']{0,512}")
