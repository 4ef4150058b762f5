"""Values of arguments that are not written as JSON, to JSON: Python's literals, Gemma's, and plain text by a schema.

Knows: how such values are written. Does not know: where they stand in a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from quire.text.formats.dialect import Keywords
from quire.text.formats.source import Source, Wait

MAX_DEPTH = 64
SPELLINGS: Mapping[str, Any] = {
    "true": True, "false": False, "null": None, "True": True, "False": False, "None": None, "none": None,
}  # fmt: skip
ESCAPES: Mapping[str, str] = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "/": "/",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_WORD = re.compile(r"[^\s,:=(){}\[\]\"']+")
_LONG_ESCAPE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})")
_OPENERS, _CLOSERS = "([{", ")]}"


def as_json(value: Any) -> str:
    """JSON as the templates write it."""
    return json.dumps(value, ensure_ascii=False)


def types_of(schema: Any) -> frozenset[str]:
    """JSON types that a property's schema allows at its top; empty where it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset((named,))
    if isinstance(named, list):
        return frozenset(each for each in named if isinstance(each, str))
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if values:
        return frozenset(type_of(each) for each in values)
    branches = [each for name in ("anyOf", "oneOf") if isinstance(schema.get(name), list) for each in schema[name]]
    found = [types_of(each) for each in branches]
    return frozenset().union(*found) if found and all(found) else frozenset()


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def typed(text: str, schema: Any) -> str:
    """The JSON of a value that was written as plain text, strings without quotes.

    What may be a string only is one. Otherwise what reads as JSON (or as Python spells true, false and null) of an
    allowed type is that, and everything else a string.
    """
    types = types_of(schema)
    if types == {"string"}:
        return as_json(text)
    try:
        value = SPELLINGS[text.strip()] if text.strip() in SPELLINGS else json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return as_json(text)
    kind = type_of(value)
    is_allowed = not types or kind in types or (kind == "integer" and "number" in types)
    return as_json(value) if is_allowed or "string" not in types else as_json(text)


def literal_json(text: str, keywords: Keywords) -> str | None:
    """The JSON of one literal; None where `text` is none."""
    reader = _Literal(text, keywords)
    try:
        value = reader.value(0)
        reader.space()
    except (ValueError, IndexError, OverflowError):
        return None
    return as_json(value) if reader.at == len(text) else None


def literal_text(source: Source, keywords: Keywords) -> Wait[str | None]:
    """The text of one literal: up to a comma or closing bracket that is not inside it. None if it is cut off."""
    parts: list[str] = []
    depth = 0
    while character := (yield from source.character()):
        if depth == 0 and (character == "," or character in _CLOSERS):
            return "".join(parts)
        depth += (character in _OPENERS) - (character in _CLOSERS)
        for quote in keywords.quotes:
            if (yield from source.literal(quote)):
                parts.append(quote)
                if not (yield from _string_text(source, quote, keywords.escapes, parts)):
                    return None
                break
        else:
            parts.append(source.take(1))
    return None


def _string_text(source: Source, quote: str, escapes: bool, parts: list[str]) -> Wait[bool]:
    while character := (yield from source.character()):
        if escapes and character == "\\":
            parts.append(source.take(1))
            if not (yield from source.character()):
                return False
            parts.append(source.take(1))
        elif (yield from source.literal(quote)):
            parts.append(quote)
            return True
        else:
            parts.append(source.take(1))
    return False


def _refuse(name: str) -> None:
    raise ValueError(name)


class _Literal:
    """One literal in a text. Everything it cannot read is a ValueError."""

    def __init__(self, text: str, keywords: Keywords) -> None:
        self.text, self.keywords, self.at = text, keywords, 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        self.space()
        for quote in self.keywords.quotes:
            if self.text.startswith(quote, self.at):
                return self.string(quote)
        character = self.text[self.at]
        if character in "[(":
            return self.items("]" if character == "[" else ")", depth)
        if character == "{":
            return dict(self.items("}", depth))
        return self.word()

    def items(self, close: str, depth: int) -> list[Any]:
        """What stands between brackets; pairs of key and value in braces."""
        found: list[Any] = []
        self.at += 1
        while True:
            self.space()
            if self.text[self.at] == close:
                self.at += 1
                return found
            if found and self.text[self.at - 1] != "," and not self.took(","):
                raise ValueError("no comma")
            self.space()
            if self.text[self.at] != close:
                found.append(self.pair(depth) if close == "}" else self.value(depth + 1))

    def pair(self, depth: int) -> tuple[str, Any]:
        key = self.value(depth + 1)
        self.space()
        if not self.took(":"):
            raise ValueError("no colon")
        return key if isinstance(key, str) else as_json(key), self.value(depth + 1)

    def took(self, character: str) -> bool:
        if self.text[self.at] != character:
            return False
        self.at += 1
        return True

    def word(self) -> Any:
        found = _WORD.match(self.text, self.at)
        if found is None:
            raise ValueError("no value")
        self.at, word = found.end(), found.group()
        if word in SPELLINGS:
            return SPELLINGS[word]
        if _NUMBER.fullmatch(word):
            plain = word.replace("_", "").lstrip("+")
            return float(plain) if set(plain) & set(".eE") else int(plain)
        if self.keywords.escapes:
            raise ValueError("a bare word")
        return word  # a key

    def string(self, quote: str) -> str:
        self.at += len(quote)
        parts: list[str] = []
        while not self.text.startswith(quote, self.at):
            character = self.text[self.at]
            self.at += 1
            parts.append(self.escape() if character == "\\" and self.keywords.escapes else character)
        self.at += len(quote)
        return "".join(parts)

    def escape(self) -> str:
        if found := _LONG_ESCAPE.match(self.text, self.at):
            self.at = found.end()
            code = int(found.group(found.lastindex or 0), 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise ValueError("no character")
            return chr(code)
        character = self.text[self.at]
        self.at += 1
        return ESCAPES.get(character, "\\" + character)
