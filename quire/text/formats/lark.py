"""Parts of grammars in Lark, as llguidance reads it: rules, texts, JSON of a schema, values of arguments.

Knows: Lark's notation and what JSON schemas say at their top. Does not know: dialects, tokens beyond their ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from quire.text.formats.dialect import Keywords, chunks
from quire.text.formats.literals import types_of

EXACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # as templates write JSON
TEXT = r"/(.|\n)*/"
NOTHING = '""'


class Rules:
    """Rules of one grammar as they are added. `special`: texts that are one special token each, to their ids."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._split = re.compile(
            "|".join(re.escape(text) for text in sorted(special, key=len, reverse=True)) or r"(?!)"
        )
        self._lines: list[str] = []

    def add(self, body: str, name: str = "", options: str = "") -> str:
        """A rule with this right side; its name."""
        name = name or f"rule_{len(self._lines)}"
        self._lines.append(f"{name}{options}: {body}")
        return name

    def is_special(self, text: str) -> bool:
        """Whether `text` is one special token."""
        return text in self._special

    def text(self, text: str) -> str:
        """Exactly this text, special tokens in it by their ids.

        White space stands apart: the lexer is greedy, and two texts that begin with the same white space would
        otherwise be told apart too late.
        """
        parts: list[str] = []
        at = 0
        for found in self._split.finditer(text):
            parts += map(quoted, chunks(text[at : found.start()]))
            parts.append(f"<[{self._special[found.group()]}]>")
            at = found.end()
        parts += map(quoted, chunks(text[at:]))
        return " ".join(parts) or NOTHING

    def up_to(self, mark: str) -> str:
        """Any text that ends with `mark`, at its first place."""
        if self.is_special(mark):
            return self.add(f"ANY {self.text(mark)}")
        return self.add(f"/(.|\\n)*{_pattern(mark)}/", options="[lazy]")

    def whole(self, start: str) -> str:
        """The grammar that begins with this right side."""
        return "\n".join(["%llguidance {}", f"start: {start}", *self._lines, f"ANY: {TEXT}", ""])


def quoted(text: str) -> str:
    """A Lark string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def schema(value: Any) -> str:
    """JSON of a schema."""
    held = {} if value is True or value is None else {"not": {}} if value is False else dict(value)
    return "%json " + json.dumps({**held, "x-guidance": EXACT}, ensure_ascii=False)


def properties(value: Any) -> list[tuple[str, Any, bool]]:
    """(key, schema, required) of an object schema's properties."""
    named = value.get("properties") if isinstance(value, Mapping) else None
    if not isinstance(named, Mapping):
        return []
    required = value.get("required") if isinstance(value.get("required"), list) else []
    return [(key, each, key in required) for key, each in named.items()]


def sequence(items: Sequence[tuple[str, bool]], comma: str) -> str:
    """The required items, then any of the others, in order, `comma` between two."""
    required = [item for item, needed in items if needed]
    optional = [item for item, needed in items if not needed]
    if required:
        return " ".join([f" {comma} ".join(required), *(f"({comma} {item})?" for item in optional)])
    ways = [
        " ".join([item, *(f"({comma} {later})?" for later in optional[place + 1 :])])
        for place, item in enumerate(optional)
    ]
    return f"({' | '.join(ways)})?" if ways else NOTHING


def literal(rules: Rules, value: Any, keywords: Keywords) -> str:
    """A literal of a schema: its type and its enum at the top and in lists; what is inside objects is any literal."""
    options = value.get("enum") if isinstance(value, Mapping) else None
    if isinstance(options, list) and options:
        return f"({' | '.join(_constant(rules, each, keywords) for each in options)})"
    kinds = sorted(types_of(value)) or ["any"]
    return f"({' | '.join(_of_type(rules, kind, value, keywords) for kind in kinds)})"


def _of_type(rules: Rules, kind: str, value: Any, keywords: Keywords) -> str:
    if kind == "array":
        items = value.get("items") if isinstance(value, Mapping) else None
        item = (
            rules.add(literal(rules, items, keywords)) if isinstance(items, Mapping) else any_literal(rules, keywords)
        )
        comma = quoted(", " if keywords.escapes else ",")
        return f'"[" ({item} ({comma} {item})*)? "]"'
    simple = {
        "string": _string(rules, keywords),
        "integer": r"/-?(0|[1-9][0-9]{0,18})/",
        "number": r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?/",
        "boolean": '("True" | "False")' if keywords.escapes else '("true" | "false")',
        "null": '"None"' if keywords.escapes else '"null"',
    }
    return simple.get(kind) or any_literal(rules, keywords)


def any_literal(rules: Rules, keywords: Keywords) -> str:
    """Any literal at all, as a rule of its own."""
    name = f"literal_{rules.add(NOTHING)}"
    comma = quoted(", " if keywords.escapes else ",")
    simple = [_of_type(rules, kind, None, keywords) for kind in ("string", "number", "boolean", "null")]
    key = _string(rules, keywords) if keywords.escapes else "/[A-Za-z_][A-Za-z0-9_]{0,63}/"
    pair = f'{key} ":" {quoted(" ") if keywords.escapes else NOTHING} {name}'
    nested = [f'"[" ({name} ({comma} {name})*)? "]"', f'"{{" ({pair} ({comma} {pair})*)? "}}"']
    return rules.add(" | ".join([*simple, *nested]), name=name)


def _string(rules: Rules, keywords: Keywords) -> str:
    if keywords.escapes:
        return r'/"([^"\\\x00-\x1f]|\\["\\nrt])*"/'
    return f"{rules.text(keywords.quotes[0])} {rules.up_to(keywords.quotes[0])}"


def _constant(rules: Rules, value: Any, keywords: Keywords) -> str:
    if isinstance(value, str):
        quote = keywords.quotes[0]
        return quoted(json.dumps(value, ensure_ascii=False)) if keywords.escapes else rules.text(quote + value + quote)
    return quoted(repr(value) if keywords.escapes else json.dumps(value))


def _pattern(text: str) -> str:
    """A regular expression that is exactly `text`, between Lark's slashes."""
    return re.sub(r"([\\.+*?()\[\]{}|^$/])", r"\\\1", text).replace("\n", r"\n")
