"""A JSON schema looked through before anything is built from it: what is wrong stands at its path.

Knows: JSON Schema's keywords, and which of them can be held token by token. Does not know: grammars, tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from quire.errors import RequestError
from quire.limits import MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
FORMATS = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid",
})  # fmt: skip
# Formats that JSON Schema defines and nobody holds here; all others are annotations, which it lets one ignore.
UNHELD_FORMATS = frozenset({
    "idn-email", "idn-hostname", "iri", "iri-reference", "json-pointer", "regex", "relative-json-pointer",
    "uri-reference", "uri-template",
})  # fmt: skip
# Keywords that would have to look at a value as a whole; with the value that asks for nothing.
UNHELD: dict[str, object] = {
    "contains": None, "dependencies": {}, "dependentRequired": {}, "dependentSchemas": {}, "else": None, "if": None,
    "maxContains": None, "minContains": None, "not": None, "propertyNames": True, "then": None, "uniqueItems": False,
    "unevaluatedItems": True, "unevaluatedProperties": True, "$dynamicRef": None, "$recursiveRef": None,
}  # fmt: skip
HINTS = {
    "dependencies": "List the allowed combinations under anyOf.",
    "if": "List the allowed combinations under anyOf.",
    "not": "Say what is allowed instead.",
    "uniqueItems": "Ask for it in the prompt and check the answer.",
}
SCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
DEFINITIONS = frozenset({"$defs", "definitions"})  # may hold what nobody refers to
SCHEMA_LISTS = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
SCHEMAS = frozenset({"additionalProperties", "additionalItems", "items"})
COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


def checked(schema: object, param: str) -> Any:
    """A copy of `schema` without what asks for nothing (unknown formats, uniqueItems: false).

    Raises `RequestError`, naming the path, for what is no schema, too large, or cannot be held. A definition may hold
    what cannot be held: the compiler refuses it where it is used (`place_of` finds it).
    """
    has_ids = _check_size(schema, param)
    return _Look(param, has_ids).schema(schema, "#")


def place_of(schema: object, message: str) -> str | None:
    """Where the first of the keywords that the compiler's `message` quotes stands, None where it quotes none."""
    quoted = set(re.findall(r'"([$\w]+)"', message)) & UNHELD.keys()
    waiting = [(schema, "#")] if quoted else []
    while waiting:
        item, path = waiting.pop()
        for name, inner in item.items() if isinstance(item, dict) else ():
            here = f"{path}/{_escaped(name)}"
            if name in quoted:
                return _short(here)
            if name in SCHEMA_MAPS and isinstance(inner, dict):
                waiting += [(each, f"{here}/{_escaped(key)}") for key, each in inner.items()]
            elif isinstance(inner, list):
                waiting += [(each, f"{here}/{number}") for number, each in enumerate(inner)]
            else:
                waiting.append((inner, here))
    return None


def with_options(schema: Any, options: Mapping[str, object]) -> dict[str, Any]:
    """A checked schema, with how its white space is held."""
    held = {"not": {}} if schema is False else {} if schema is True else schema
    return {**held, "x-guidance": dict(options)}


def _check_size(value: object, param: str) -> bool:
    """Refuse what is too large; True where parts have names of their own, to which a $ref may lead."""
    waiting, num_values, has_ids = [(value, 1)], 0, False
    while waiting:
        item, depth = waiting.pop()
        num_values += 1
        num_inside = len(item) if isinstance(item, (dict, list)) else 0
        if depth > MAX_SCHEMA_DEPTH:
            raise RequestError("the schema is nested too deeply", allowed=f"{MAX_SCHEMA_DEPTH} levels", param=param)
        if num_values + len(waiting) + num_inside > MAX_SCHEMA_VALUES:
            raise RequestError("the schema is too large", allowed=f"{MAX_SCHEMA_VALUES} values", param=param)
        if isinstance(item, dict):
            has_ids = has_ids or "$id" in item or "id" in item
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
    return has_ids


class _Look:
    """One look through a schema. Recursion is bounded by `MAX_SCHEMA_DEPTH`."""

    def __init__(self, param: str, has_ids: bool) -> None:
        self._param, self._has_ids = param, has_ids

    def schema(self, value: object, path: str, defined: bool = False) -> Any:
        """The schema at `path`, copied."""
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise self._wrong("a schema is no object", path, value, "an object, true or false")
        return dict(self._entries(value, path, defined))

    def _entries(self, schema: dict[str, Any], path: str, defined: bool) -> Iterator[tuple[str, Any]]:
        for name, value in schema.items():
            here = f"{path}/{_escaped(name)}"
            if name in UNHELD:
                asks = value != UNHELD[name] or isinstance(value, int) != isinstance(UNHELD[name], int)
                if asks and defined:
                    yield name, value
                elif asks:
                    raise self._unheld(f"the keyword {name}", here, HINTS.get(name))
            elif name == "format" and isinstance(value, str):
                if value in UNHELD_FORMATS and not defined:
                    raise self._unheld(f"the format {value}", here, "Use a pattern.")
                if value in FORMATS or value in UNHELD_FORMATS:
                    yield name, value
            elif name != "x-guidance":
                yield name, self._value(name, value, here, defined)

    def _value(self, name: str, value: Any, path: str, defined: bool) -> Any:
        if name in SCHEMA_MAPS:
            self._expect(isinstance(value, dict), f"{name} is no object", path, value)
            defined = defined or name in DEFINITIONS
            return {key: self.schema(inner, f"{path}/{_escaped(key)}", defined) for key, inner in value.items()}
        if name in SCHEMA_LISTS or (name == "items" and isinstance(value, list)):
            self._expect(isinstance(value, list) and value, f"{name} is no list of schemas", path, value)
            return [self.schema(inner, f"{path}/{index}", defined) for index, inner in enumerate(value)]
        if name in SCHEMAS:
            return self.schema(value, path, defined)
        self._check(name, value, path)
        return value

    def _check(self, name: str, value: Any, path: str) -> None:
        if name == "type":
            asked = value if isinstance(value, list) else [value]
            known = bool(asked) and all(isinstance(each, str) and each in TYPES for each in asked)
            self._expect(known, "there is no such type", path, value, ", ".join(TYPES))
        elif name == "required":
            right = isinstance(value, list) and all(isinstance(each, str) for each in value)
            self._expect(right, "required is no list of names", path, value)
        elif name == "enum":
            self._expect(isinstance(value, list) and value, "enum is no list of values", path, value)
        elif name in COUNTS:
            self._expect(_is_number(value) and value >= 0 and value == int(value), f"{name} is no count", path, value)
        elif name in NUMBERS:
            flag = name.startswith("exclusive") and isinstance(value, bool)  # draft 4
            self._expect(flag or _is_number(value), f"{name} is no number", path, value)
        elif name in ("pattern", "$ref", "format"):
            self._expect(isinstance(value, str), f"{name} is no text", path, value)
            if name == "$ref":
                inside = self._has_ids or value.startswith("#")
                self._expect(inside, "a $ref leads out of the schema", path, value, "#... : nothing is fetched")

    def _expect(self, right: object, what: str, path: str, got: object, allowed: str | None = None) -> None:
        if not right:
            raise self._wrong(what, path, got, allowed)

    def _wrong(self, what: str, path: str, got: object, allowed: str | None) -> RequestError:
        return RequestError(f"{what} at {_short(path)} of the schema", got=got, allowed=allowed, param=self._param)

    def _unheld(self, what: str, path: str, hint: str | None) -> RequestError:
        where = f"{what} at {_short(path)} of the schema cannot be held while the answer is written"
        return RequestError(where, hint=hint, param=self._param, code="unsupported_schema")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _short(path: str) -> str:
    return path if len(path) <= 200 else "…" + path[-199:]
