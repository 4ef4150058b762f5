"""Schemas are looked through: what is wrong stands at its path, what asks for nothing is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llguidance
import pytest

from quire.errors import RequestError
from quire.form import StructuredOutputsParams
from quire.limits import MAX_GRAMMAR_BYTES, MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES
from quire.structured.grammar import compile_grammar
from quire.structured.matcher import Matcher
from quire.structured.schema import checked, place_of
from quire.structured.source import grammar_of
from quire.structured.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (3, "no object at #"),
        ({"type": "text"}, "at #/type"),
        ({"properties": {"a": 1}}, "at #/properties/a"),
        ({"properties": []}, "at #/properties"),
        ({"items": {"anyOf": []}}, "at #/items/anyOf"),
        ({"anyOf": [{}, {"enum": []}]}, "at #/anyOf/1/enum"),
        ({"required": ["a", 1]}, "at #/required"),
        ({"maxLength": -1}, "at #/maxLength"),
        ({"minItems": True}, "at #/minItems"),
        ({"minimum": "0"}, "at #/minimum"),
        ({"pattern": 1}, "at #/pattern"),
        ({"$ref": "http://example.org"}, "at #/$ref"),
        ({"properties": {"a/b~c": {"not": {}}}}, "not at #/properties/a~1b~0c/not"),
        ({"additionalProperties": {"uniqueItems": True}}, "uniqueItems at #/additionalProperties/uniqueItems"),
        ({"allOf": [{"if": {}}]}, "if at #/allOf/0/if"),
        ({"format": "idn-email"}, "idn-email at #/format"),
    ],
)
def test_what_is_wrong_stands_at_its_path(schema: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked(schema, "here")
    assert said in caught.value.message
    assert caught.value.param == "here"


def test_what_asks_for_nothing_is_left_out() -> None:
    schema = {"uniqueItems": False, "format": "colour", "x-guidance": {"lenient": True}, "items": {"format": "date"}}
    assert checked(schema, "") == {"items": {"format": "date"}}
    assert checked(True, "") is True


def test_a_definition_may_hold_what_nobody_uses() -> None:
    schema = {"$defs": {"a": {"not": {}}}, "type": "string"}
    assert checked(schema, "") == schema
    assert place_of(schema, 'Unimplemented keys: ["not"]') == "#/$defs/a/not"
    assert place_of(schema, "something else") is None
    assert place_of({"properties": {"not": {"type": "string"}}}, 'keys: ["not"]') is None


def test_size_and_depth_are_bounded() -> None:
    deep: Any = {}
    for _ in range(MAX_SCHEMA_DEPTH):
        deep = {"items": deep}
    for schema in (deep, {"enum": list(range(MAX_SCHEMA_VALUES))}):
        with pytest.raises(RequestError, match="too"):
            checked(schema, "")
    with pytest.raises(RequestError, match="too large"):
        grammar_of(StructuredOutputsParams(grammar="a" * (MAX_GRAMMAR_BYTES + 1)))


def accepts(grammar: Any, tokens: list[int]) -> bool:
    matcher = Matcher(grammar)
    try:
        matcher.accept(tokens)
    except RequestError:
        return False
    return matcher.accepts


def test_nothing_is_lost_against_the_library_used_directly(words: Vocabulary, shared_data: Path) -> None:
    """Over JSON Schema's own tests: what compiles directly compiles here, and the same texts are accepted."""
    num_schemas = num_texts = 0
    for path in sorted((shared_data / "json_schema/test_suite/draft2020-12").rglob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(group["schema"]))
            direct = llguidance.LLMatcher(words.library, text, log_level=0)
            if direct.is_error():
                continue
            ours = compile_grammar(grammar_of(StructuredOutputsParams(json=group["schema"])), words)
            num_schemas += 1
            for test in group["tests"]:
                tokens = words.encode(json.dumps(test["data"], ensure_ascii=False))
                copy = direct.deep_copy()
                by_direct = copy.try_consume_tokens(tokens) == len(tokens) and copy.is_accepting()
                assert accepts(ours, tokens) == by_direct, (path.name, group["description"], test["description"])
                assert test["valid"] or not by_direct or "optional" in path.parts
                num_texts += 1
    assert num_schemas > 150
    assert num_texts > 500


@pytest.mark.parametrize("name", ["Github_trivial", "Github_easy", "Github_medium"])
def test_schemas_from_the_wild_compile_as_they_do_directly(words: Vocabulary, shared_data: Path, name: str) -> None:
    lines = (shared_data / f"json_schema/jsonschemabench/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    num_direct = num_here = 0
    for line in lines[::7]:
        entry = json.loads(line)
        text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(entry["schema"]))
        direct = not llguidance.LLMatcher(words.library, text, log_level=0).is_error()
        try:
            compile_grammar(grammar_of(StructuredOutputsParams(json=entry["schema"])), words)
            num_here += 1
        except RequestError:
            assert not direct, entry["id"]
        num_direct += direct
    assert num_here >= num_direct > 0.8 * len(lines[::7])
