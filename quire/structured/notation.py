"""Texts, patterns and schemas as llguidance's Lark writes them.

Knows: Lark's notation. Does not know: forms, tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from quire.structured.schema import checked, with_options


def literal(text: str) -> str:
    """`text` in quotes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def pattern(regex: str) -> str:
    """A regular expression between slashes."""
    escaped, place = [], 0
    while place < len(regex):
        step = 2 if regex[place] == "\\" and place + 1 < len(regex) else 1
        part = regex[place : place + step]
        escaped.append({"/": "\\/", "\n": "\\n", "\r": "\\r"}.get(part, part))
        place += step
    return "/" + "".join(escaped) + "/"


def json_of(schema: object, options: Mapping[str, object], param: str) -> str:
    """JSON of this schema, for a rule's right side. Raises `RequestError` as `schema.checked` does."""
    return "%json " + json.dumps(with_options(checked(schema, param), options), ensure_ascii=False)
