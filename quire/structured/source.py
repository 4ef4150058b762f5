"""The form that was asked for as a grammar: text that llguidance compiles.

    json, json_object      {"grammars": [{"json_schema": {...}}]}, white space bounded
    regex, choice, tags    Lark
    grammar                Lark as it is, or EBNF behind `EBNF` (its translation is part of the compiling)

Knows: JSON, Lark's notation. Does not know: tokens, and whether a grammar compiles.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from quire.errors import RequestError
from quire.form import StructuredOutputsParams
from quire.limits import (
    MAX_CHOICE_TEXTS,
    MAX_GRAMMAR_BYTES,
    MAX_REGEX_CHARACTERS,
    MAX_SCHEMA_DEPTH,
    MAX_WHITESPACE_CHARACTERS,
)
from quire.structured.notation import literal, pattern
from quire.structured.schema import checked, with_options
from quire.structured.tags import tags_grammar

# A line break may be followed by an indentation; nothing else repeats, so that no answer is lost in white space.
WHITESPACE = r"( {1,2}|\r?\n[ \t]{0,48})"
EBNF = "%ebnf\n"


def grammar_of(form: StructuredOutputsParams, specials: Collection[str] = (), param: str = "structured_outputs") -> str:
    """The grammar of `form`. `specials` are texts that stand for one special token each.

    Raises `RequestError` (naming `param`) for what is no such form, or larger than the limits.
    """
    grammar = _grammar(form, specials, param)
    size = len(grammar.encode("utf-8", "replace"))
    if size > MAX_GRAMMAR_BYTES:
        raise RequestError(
            "the grammar is too large", got=f"{size} bytes", allowed=f"{MAX_GRAMMAR_BYTES} bytes", param=param
        )
    return grammar


def whitespace_options(form: StructuredOutputsParams, param: str) -> dict[str, object]:
    """How white space between JSON's parts is held."""
    if form.disable_any_whitespace:
        return {"whitespace_flexible": False}
    if form.whitespace_pattern is None:
        return {"whitespace_pattern": WHITESPACE}
    asked = _short(form.whitespace_pattern, param, "whitespace_pattern", MAX_WHITESPACE_CHARACTERS)
    return {"whitespace_pattern": asked}


def _grammar(form: StructuredOutputsParams, specials: Collection[str], param: str) -> str:
    options = whitespace_options(form, param)
    match form.kind:
        case "json":
            return _json(_loaded(form.json, param), options, param)
        case "json_object":
            return _json({"type": "object"}, options, param)
        case "regex":
            regex = _short(form.regex, param, "regex", MAX_REGEX_CHARACTERS)
            return json.dumps({"grammars": [{"lark_grammar": "start: " + pattern(regex)}]})
        case "choice":
            return _choice(form.choice, param)
        case "structural_tag":
            return tags_grammar(_loaded(form.structural_tag, param), options, specials, param)
    text = _text(form.grammar, param, "grammar")
    return EBNF + text if "::=" in text else text


def _json(schema: object, options: Mapping[str, object], param: str) -> str:
    whole = with_options(checked(schema, param), options)
    return json.dumps({"grammars": [{"json_schema": whole}]}, ensure_ascii=False)


def _loaded(value: object, param: str) -> object:
    """JSON that may come as its text."""
    if not isinstance(value, str):
        return dict(value) if isinstance(value, Mapping) else value
    if len(value) > MAX_GRAMMAR_BYTES:
        raise RequestError("the schema is too large", allowed=f"{MAX_GRAMMAR_BYTES} bytes", param=param)
    try:
        return json.loads(value)
    except RecursionError:
        raise RequestError(
            "the schema is nested too deeply", allowed=f"{MAX_SCHEMA_DEPTH} levels", param=param
        ) from None
    except ValueError as error:
        raise RequestError("the schema is not valid JSON", got=str(error), param=param) from None


def _text(value: object, param: str, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"the {what} is empty or no text", got=value, param=param)
    return value


def _short(value: object, param: str, what: str, most: int) -> str:
    text = _text(value, param, what)
    if len(text) > most:
        raise RequestError(
            f"the {what} is too long", got=f"{len(text)} characters", allowed=f"{most} characters", param=param
        )
    return text


def _choice(choices: object, param: str) -> str:
    listed = list(choices) if isinstance(choices, (list, tuple)) else []
    if not listed or len(listed) > MAX_CHOICE_TEXTS or not all(isinstance(text, str) and text for text in listed):
        raise RequestError(
            "choice is no list of texts", got=choices, allowed=f"1 to {MAX_CHOICE_TEXTS} texts, none empty", param=param
        )
    return "start: " + " | ".join(literal(text) for text in listed)
