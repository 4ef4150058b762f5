"""What is constrained is what is parsed: grammars take what dialects write, and whatever they allow reads as calls."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

import quire
from quire.text.folder import SpecialTokens
from quire.text.formats.dialect import Format
from quire.text.formats.grammar import Asked, Tool, constraint
from quire.text.formats.parser import open_parser
from quire.text.formats.said import Call, calls_of, content_of, joined
from quire.text.formats.writing import answer_text
from quire.text.tokenizer import Tokenizer

from .answers import forms

llguidance = pytest.importorskip("llguidance")

FORMS = forms()
BUNDLED = Path(quire.__file__).parent / "bundled"
SCHEMAS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "array", "items": {"type": "integer"}},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "deep": {"type": "boolean"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [Tool(name, schema) for name, schema in SCHEMAS.items()]


class Vocabulary:
    """The bundled vocabulary with a dialect's marks, as special tokens or as text, the way llguidance takes it."""

    def __init__(self, form: Format, is_special: bool) -> None:
        backend = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
        self.marks = [
            mark for mark in sorted(form.tokens) if is_special and re.fullmatch(r"<[^ =]+>|\[[A-Z_]+\]", mark)
        ]
        backend.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in self.marks])
        self.tokenizer = Tokenizer(backend, SpecialTokens(), {})
        self.special = {
            mark: self.tokenizer.id_of(mark) for mark in self.marks if self.tokenizer.id_of(mark) is not None
        }
        self.eos_token_id, self.bos_token_id = self.tokenizer.id_of("<|im_end|>"), None
        self.tokens = [self.tokenizer.token_bytes(token) for token in range(self.tokenizer.vocab_size)]
        self.special_token_ids = sorted(self.tokenizer.special_ids)
        self.library = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self))

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False)

    def matcher(self, grammar: str) -> Any:
        matcher = llguidance.LLMatcher(self.library, grammar, log_level=0)
        assert not matcher.is_error(), matcher.get_error()[:500] + grammar
        return matcher

    def allowed(self, matcher: Any) -> list[int]:
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed: list[int] = np.flatnonzero(np.unpackbits(mask, bitorder="little")[: len(self.tokens)]).tolist()
        return allowed


def accepts(vocabulary: Vocabulary, grammar: str, text: str) -> bool:
    matcher = vocabulary.matcher(grammar)
    ids = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()


CLOSING = (b'"', b"]", b"}", b"<", b"\n")


def walk(vocabulary: Vocabulary, grammar: str, chance: random.Random, most: int = 250) -> str | None:
    """A text drawn token by token from what is allowed; None if it did not end."""
    matcher, ids = vocabulary.matcher(grammar), []
    while len(ids) < most:
        allowed = vocabulary.allowed(matcher)
        if vocabulary.eos_token_id in allowed and (len(allowed) == 1 or chance.random() < 0.3):
            return vocabulary.tokenizer.decode(ids, skip_special_tokens=False)
        closing = (
            [token for token in allowed if vocabulary.tokens[token][:1] in CLOSING] if chance.random() < 0.4 else []
        )
        token = chance.choice(closing or allowed)
        if token != vocabulary.eos_token_id:
            ids.append(token)
            assert matcher.consume_token(token)
    return None


EXAMPLES = [
    ("now", "{}"),
    ("get_weather", '{"city": "Zürich", "days": []}'),
    ("get_weather", '{"city": "it is \\"so\\" <b>", "days": [1, -20], "deep": true}'),
    ("get_weather", '{"city": "", "days": [3], "unit": "celsius", "deep": false}'),
]
NAMES = [name for name, form in FORMS.items() if form.has_calls]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_special", [False, True])
def test_required_calls_are_accepted_as_written_and_nothing_else(name: str, is_special: bool) -> None:
    form, chance = FORMS[name], random.Random(name)
    vocabulary = Vocabulary(form, is_special)
    grammar = constraint(form, Asked(TOOLS, "required"), vocabulary.special)
    assert grammar is not None
    is_one = form.channels is not None or (form.calls is not None and form.calls.one)
    for _ in range(4):
        calls = [Call(*chance.choice(EXAMPLES)) for _ in range(1 if is_one else 2)]
        text = answer_text(form, calls).removesuffix("<|call|>")
        assert accepts(vocabulary, grammar, text), text + grammar
    assert not accepts(vocabulary, grammar, "Hello there")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_whatever_is_allowed_reads_as_calls_of_their_schemas(name: str, choice: Any) -> None:
    """Random walks through the masks: every call is whole, its tool exists, its arguments are of its schema."""
    form, chance = FORMS[name], random.Random(f"{name} {choice}")
    vocabulary = Vocabulary(form, chance.random() < 0.5)
    tools = [Tool(tool.name, tool.parameters, strict=True) for tool in TOOLS]
    grammar = constraint(form, Asked(tools, choice, is_many=False), vocabulary.special)
    assert grammar is not None
    texts = [text for _ in range(8) if (text := walk(vocabulary, grammar, chance)) is not None]
    assert texts
    for text in texts:
        parser = open_parser(form, SCHEMAS)
        said = joined([*parser.feed(text), *parser.end()])
        calls = calls_of(said)
        assert parser.is_whole or not calls
        assert len(calls) == 1 if choice == "required" else len(calls) <= 1
        assert choice == "auto" or content_of(said) == ""
        for call in calls:
            check_arguments(json.loads(call.arguments), SCHEMAS[call.name])


def check_arguments(arguments: dict[str, Any], schema: dict[str, Any]) -> None:
    kinds = {"city": str, "days": list, "unit": str, "deep": bool}
    assert arguments.keys() <= schema["properties"].keys()
    assert arguments.keys() >= set(schema.get("required", ()))
    assert all(isinstance(value, kinds[key]) for key, value in arguments.items())
    assert all(type(each) is int for each in arguments.get("days", []))
    assert arguments.get("unit", "celsius") in ("celsius", "fahrenheit")


def test_a_strict_tool_leaves_text_free_and_holds_what_follows_the_mark() -> None:
    form = FORMS["hermes"]
    vocabulary = Vocabulary(form, False)
    grammar = constraint(form, Asked([Tool("now", None, strict=True)]), {})
    assert grammar is not None
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    for text in ("", "Hello <b>", call, f"Well.\n{call}\n{call}", f"a{call} b"):
        assert accepts(vocabulary, grammar, text)
    for text in (
        "<tool_call>no",
        f"{call}<tool_call>\n{{}}",
        '<tool_call>\n{"name": "then", "arguments": {}}\n</tool_call>',
    ):
        assert not accepts(vocabulary, grammar, text)


def test_nothing_asked_is_no_grammar() -> None:
    assert constraint(FORMS["hermes"], Asked(TOOLS), {}) is None
    assert constraint(Format(), Asked(), {}) is None


@pytest.mark.parametrize("in_thought", [False, True])
def test_reasoning_may_come_before_required_calls(in_thought: bool) -> None:
    form = FORMS["hermes+think"]
    vocabulary = Vocabulary(form, False)
    grammar = constraint(form, Asked(TOOLS, "required"), {}, in_thought=in_thought)
    assert grammar is not None
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    thought = "" if in_thought else "<think>"
    assert accepts(vocabulary, grammar, f"{thought}\nHm, what <b>now</b>?\n</think>\n\n{call}")
    assert accepts(vocabulary, grammar, call) == (not in_thought)
    assert not accepts(vocabulary, grammar, f"{thought}\nHm.\n</think>\n\nHello")


def test_a_budget_of_reasoning_is_held_to_the_token() -> None:
    form = FORMS["think:think"]
    vocabulary = Vocabulary(form, True)
    close = vocabulary.special["</think>"]
    grammar = constraint(form, Asked(budget=3), vocabulary.special, close=close, in_thought=True)
    assert grammar is not None
    word = vocabulary(b"word")[0]
    matcher = vocabulary.matcher(grammar)
    for _ in range(3):
        assert {word, close} <= set(vocabulary.allowed(matcher))
        matcher.consume_token(word)
    assert vocabulary.allowed(matcher) == [close]
    matcher.consume_token(close)
    assert {word, vocabulary.eos_token_id} <= set(vocabulary.allowed(matcher))
    unthinking = constraint(form, Asked(budget=0), vocabulary.special, close=close)
    assert accepts(vocabulary, str(unthinking), "Hello")
    assert accepts(vocabulary, str(unthinking), "<think></think>Hello")
    assert not accepts(vocabulary, str(unthinking), "<think>Hm</think>Hello")


CONTENT = [
    ('start: "yes" | "no"', "yes", "maybe"),
    ('{"grammars": [{"json_schema": {"type": "integer", "x-guidance": {"whitespace_flexible": false}}}]}', "12", "a"),
]


@pytest.mark.parametrize("name", ["hermes", "hermes+think", "llama3", "mistral_list", "think:think", "harmony"])
@pytest.mark.parametrize(("content", "good", "bad"), CONTENT)
def test_content_of_another_grammar_stands_beside_calls_and_after_reasoning(
    name: str, content: str, good: str, bad: str
) -> None:
    form = FORMS[name]
    vocabulary = Vocabulary(form, name == "harmony")
    tools = TOOLS if form.has_calls else []
    grammar = constraint(form, Asked(tools, content=content), vocabulary.special)
    assert grammar is not None

    def takes(**said: Any) -> bool:
        text = answer_text(form, **said).removesuffix("<|call|>").removesuffix("<|return|>")
        return accepts(vocabulary, grammar, text)

    assert takes(content=good)
    assert not takes(content=bad)
    assert takes(calls=[Call("now", "{}")]) == form.has_calls or not form.has_calls
    assert not form.has_reasoning or takes(content=good, thought="Hm?")
    assert not form.has_reasoning or not takes(content=bad, thought="Hm?")
