"""JSON as it comes: passed on while it is valid, up to the end of the value.

A control character inside a string, which JSON forbids and models write, is passed on escaped.

Knows: RFC 8259. Does not know: what the value is for.
"""

from __future__ import annotations

import json
import re

from quire.text.formats.source import Source, Tell, Wait

MAX_DEPTH = 128
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_ATOM = re.compile(r"[-+.0-9A-Za-z]{0,4096}")
_ATOMS = re.compile(r"true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BLANK = re.compile(r"[ \t\r\n]*")
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_CLOSES = {"{": "}", "[": "]"}


def value(source: Source, tell: Tell) -> Wait[bool]:
    """Tell one value. False where it stops being JSON, nests too deep or is cut off; what was told stays told."""
    stack: list[str] = []  # the characters that close what is open
    expect = "value"
    while True:
        yield from _blank(source, tell)
        character = yield from source.character()
        if stack and character == stack[-1] and expect in ("first", "comma"):
            tell(source.take(1))
            stack.pop()
        elif expect == "comma":
            if character != ",":
                return False
            tell(source.take(1))
            expect = "key" if stack[-1] == "}" else "value"
            continue
        elif expect == "key" or (expect == "first" and stack[-1] == "}"):
            if not (yield from _pass_key(source, tell)):
                return False
            expect = "value"
            continue
        elif character in _CLOSES and len(stack) < MAX_DEPTH:
            tell(source.take(1))
            stack.append(_CLOSES[character])
            expect = "first"
            continue
        elif not (yield from (_pass_string if character == '"' else _pass_atom)(source, tell)):
            return False
        if not stack:
            return True
        expect = "comma"


def string(source: Source) -> Wait[str | None]:
    """One string, decoded; None where there is none."""
    parts: list[str] = []
    if not (yield from _pass_string(source, parts.append)):
        return None
    decoded: str = json.loads("".join(parts))
    return decoded


def is_object(text: str) -> bool:
    """Whether `text` is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _blank(source: Source, tell: Tell) -> Wait[None]:
    if blank := (yield from source.run(_BLANK)):
        tell(blank)


def _pass_key(source: Source, tell: Tell) -> Wait[bool]:
    if not (yield from _pass_string(source, tell)):
        return False
    yield from _blank(source, tell)
    if not (yield from source.literal(":")):
        return False
    tell(":")
    return True


def _pass_string(source: Source, tell: Tell) -> Wait[bool]:
    if not (yield from source.literal('"')):
        return False
    tell('"')
    while character := (yield from source.character()):
        if found := _PLAIN.match(source.text, source.at):
            tell(source.take(found.end() - source.at))
        elif character == '"':
            tell(source.take(1))
            return True
        elif character != "\\":
            tell(json.dumps(source.take(1))[1:-1])
        elif not (yield from _pass_escape(source, tell)):
            return False
    return False


def _pass_escape(source: Source, tell: Tell) -> Wait[bool]:
    while len(source.text) - source.at < 2 or (source.text[source.at + 1] == "u" and len(source.text) - source.at < 6):
        if source.ended:
            tell(source.take(len(source.text) - source.at))
            return False
        yield
    is_long = source.text[source.at + 1] == "u"
    if not (_HEX.match(source.text, source.at + 2) if is_long else source.text[source.at + 1] in '"\\/bfnrt'):
        return False
    tell(source.take(6 if is_long else 2))
    return True


def _pass_atom(source: Source, tell: Tell) -> Wait[bool]:
    atom = yield from source.run(_ATOM)
    is_cut = source.ended and source.at == len(source.text)
    if is_cut or _ATOMS.fullmatch(atom):
        tell(atom)
        return not is_cut
    source.at -= len(atom)
    return False
