"""Every dialect: what was written is read back, however it is cut; what is malformed stays text, without marks."""

from __future__ import annotations

import json
import random

import pytest

from quire.text.formats.catalogue import TOOL_FORMATS
from quire.text.formats.dialect import Calls, Format
from quire.text.formats.parser import open_parser
from quire.text.formats.said import CallPart, Content, calls_of, content_of, joined, thought_of

from .answers import broken, check, cut, forms, no_marks, parsed, random_answer

FORMS = forms()
WEATHER = {"f": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}}}


@pytest.mark.parametrize("name", FORMS)
def test_what_was_written_is_read_back_however_it_is_cut(name: str) -> None:
    chance = random.Random(name)
    for _ in range(60):
        answer = random_answer(FORMS[name], chance)
        whole = parsed(answer, [answer.text])
        check(answer, whole)
        for _ in range(3):
            assert parsed(answer, cut(answer.text, chance)) == whole, answer.text


@pytest.mark.parametrize("name", FORMS)
def test_malformed_text_is_read_the_same_however_it_is_cut_and_never_shows_a_mark(name: str) -> None:
    chance = random.Random(name)
    for _ in range(60):
        answer = broken(random_answer(FORMS[name], chance), chance)
        whole = parsed(answer, [answer.text])
        no_marks(answer.form, whole)
        for _ in range(3):
            assert parsed(answer, cut(answer.text, chance)) == whole, answer.text


def said_of(form: str, text: str, **named: object) -> list[object]:
    calls = TOOL_FORMATS[form]
    parser = open_parser(Format(calls=calls) if isinstance(calls, Calls) else Format(channels=calls), WEATHER, **named)
    return joined([*parser.feed(text), *parser.end()])


def test_arguments_come_as_they_are_written_and_the_name_comes_once() -> None:
    parser = open_parser(FORMS["hermes"], WEATHER)
    told = [
        parser.feed(piece)
        for piece in ("Well.\n<tool_", 'call>\n{"name": "f", "argu', 'ments": {"a": "x', 'y"}}\n</tool_call>')
    ]
    assert told[0] == [Content("Well.")]
    assert told[1] == []
    assert told[2] == [CallPart(0, name="f"), CallPart(0, '{"a": "x')]
    assert told[3] == [CallPart(0, 'y"}')]
    assert parser.is_whole
    assert parser.end() == []


def test_a_string_between_marks_streams_too() -> None:
    parser = open_parser(FORMS["qwen3_coder"], WEATHER)
    assert parser.feed("<tool_call>\n<function=f>\n<parameter=a>\nline 1\nli") == [
        CallPart(0, name="f"),
        CallPart(0, '{"a": "line 1\\nli'),
    ]
    assert parser.feed("ne 2\n</para") == [CallPart(0, "ne 2")]
    assert parser.feed("meter>\n</function>\n</tool_call>") == [CallPart(0, '"}')]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", '<tool_call>\n{"arguments": {"a": "x"}, "name": "f"}\n</tool_call>'),
        ("hermes", '<tool_call>{"name":"f","arguments":"{\\"a\\": \\"x\\"}"}</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "f", "parameters": {"a": "x"}, "id": 7}'),
        ("llama3", '{"name": "f", "parameters": {"a": "x"}}'),
        ("llama3", ' <|python_tag|>{"type": "function", "name": "f", "parameters": {"a": "x"}}'),
        ("mistral_list", '[TOOL_CALLS][{"name": "f", "arguments": {"a": "x"}, "id": "abcdefghi"}]'),
        ("mistral_list", '[TOOL_CALLS] {"name": "f", "arguments": {"a": "x"}}'),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": "x"}'),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": "x"}'),
        ("qwen3_coder", "<function=f>\n<parameter=a>\nx\n</parameter>\n</function>"),
        ("qwen3_coder", "<tool_call><function=f><parameter=a>x</parameter></function></tool_call>"),
        ("glm", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n</tool_call>"),
        ("kimi_k2", '<|tool_call_begin|>f:3<|tool_call_argument_begin|>{"a": "x"}<|tool_call_end|>'),
        ("harmony", '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "x"}<|call|>'),
        ("harmony", ' to=functions.f<|channel|>commentary json<|message|>{"a": "x"}'),
        ("gemma4", '<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>'),
        ("pythonic", "[f(a='x')]"),
        ("pythonic", '[ f( a = "x" , ) ]'),
        ("granite", '<|tool_call|>[{"arguments": {"a": "x"}, "name": "f"}]'),
    ],
)  # fmt: skip
def test_what_models_write_besides_what_their_template_shows(form: str, text: str) -> None:
    (call,) = calls_of(said := said_of(form, text))
    assert (call.name, json.loads(call.arguments)) == ("f", {"a": "x"})
    assert content_of(said) == ""


@pytest.mark.parametrize(
    ("form", "text", "content"),
    [
        ("hermes", '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>', '{"name": "g", "arguments": {}}'),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": [1]}\n</tool_call>', '{"name": "f", "arguments": [1]}'),
        ("hermes", "<tool_call>not JSON</tool_call> and more", "not JSON and more"),
        ("hermes", "a <tool_call", "a <tool_call"),
        ("llama3", '{"city": "Bern"}', '{"city": "Bern"}'),
        ("llama3", 'First {"name": "f", "parameters": {}}', 'First {"name": "f", "parameters": {}}'),
        ("pythonic", "[1] says f(a=2)", "[1] says f(a=2)"),
        ("pythonic", "[g(a=2)]", "[g(a=2)]"),
        ("qwen3_coder", "<function=g>\n</function>", "g>"),
        ("harmony", "<|channel|>final<|message|>Hi<|return|>", "Hi"),
        ("harmony", "just text", "just text"),
        ("harmony", '<|channel|>commentary to=functions.g<|message|>{"a": 1}<|call|>', '{"a": 1}'),
    ],
)
def test_what_is_no_call_stays_text(form: str, text: str, content: str) -> None:
    said = said_of(form, text)
    assert calls_of(said) == []
    assert content_of(said) == content


def test_a_call_that_breaks_off_keeps_what_was_told_and_the_rest_is_text() -> None:
    said = said_of("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1, oops}}\n</tool_call>\nSorry.')
    (call,) = calls_of(said)
    assert call.arguments == '{"a": 1, '
    assert content_of(said) == "oops}}\nSorry."


def test_reasoning_that_the_prompt_opened() -> None:
    parser = open_parser(FORMS["think:think"], in_thought=True)
    told = [*parser.feed("\nFirst, <tool_call> is a mark.\n</think>\n\nDone."), *parser.end()]
    assert thought_of(told) == "First, <tool_call> is a mark."
    assert content_of(told) == "Done."
    cut_off = open_parser(FORMS["think:think"], in_thought=True)
    told = [*cut_off.feed("never ends</thi"), *cut_off.end()]
    assert (thought_of(told), content_of(told)) == ("never ends</thi", "")


def test_without_tools_marks_of_calls_are_text() -> None:
    parser = open_parser(FORMS["hermes+think"])
    told = [*parser.feed("<think>a</think>See <tool_call>."), *parser.end()]
    assert content_of(told) == "See <tool_call>."


@pytest.mark.parametrize("name", FORMS)
def test_no_mark_begins_or_overlaps_another(name: str) -> None:
    marks = FORMS[name].marks
    for one in marks:
        for other in marks:
            if one != other:
                assert one not in other
            assert not any(other.startswith(one[at:]) for at in range(1, len(one))), (one, other)
