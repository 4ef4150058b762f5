"""Random answers with tool calls, as dialects write them, and random ways to cut a text.

Knows: what a dialect can write at all. Does not know: how it is read.
"""

from __future__ import annotations

import codecs
import json
import random
from dataclasses import dataclass, replace
from typing import Any

from quire.text.formats.catalogue import HARMONY, REASONING_FORMATS, TOOL_FORMATS
from quire.text.formats.dialect import Calls, Channels, Format, Part, Reasoning
from quire.text.formats.parser import open_parser
from quire.text.formats.said import Call, CallPart, Said, calls_of, content_of, joined, thought_of
from quire.text.formats.writing import answer_text

TYPES = ("string", "integer", "number", "boolean", "array", "object", "any")
NAMES = ("get_weather", "search.web", "now", "send-mail", "f")
KEYS = ("city", "unit", "days", "deep", "text", "n", "x_1")
TEXTS = (
    "Zürich", "", "a b", '"quoted"', "it's", "back\\slash", "5", "true", "None", "日本語 🦊", "<b>&amp;</b>", "{}",
    "[1, 2]", "a, b) = c", "line\nbreak", "tab\t", " spaced ", "</p>", "1e5", "<tool", "\u2028", "x" * 40,
)  # fmt: skip
PROSE = (
    "Let me look.",
    "Hm, 1 < 2 and [3].",
    "Grüße 🦊 {not json}",
    "a <b> c",
    "Line one.\n\nLine two.",
    "```json\n{}```",
)


@dataclass(frozen=True)
class Answer:
    """A text and what it says."""

    form: Format
    tools: dict[str, Any]
    text: str
    calls: list[Call]
    content: str
    thought: str


def forms() -> dict[str, Format]:
    """Every dialect alone, and those with marks together with reasoning."""
    found = {}
    for name, calls in TOOL_FORMATS.items():
        found[name] = Format(channels=calls) if isinstance(calls, Channels) else Format(calls=calls)
    for name, reasoning in REASONING_FORMATS.items():
        if isinstance(reasoning, Reasoning):
            found[f"think:{name}"] = Format(reasoning=reasoning)
            found[f"hermes+{name}"] = Format(calls=TOOL_FORMATS["hermes"], reasoning=reasoning)
    think = REASONING_FORMATS["think"]
    for name in ("qwen3_coder", "glm", "minimax", "deepseek_v31", "llama3", "pythonic"):
        found[f"{name}+think"] = Format(calls=TOOL_FORMATS[name], reasoning=think)
    return found


def random_answer(form: Format, chance: random.Random) -> Answer:
    """Some calls, perhaps prose before them, perhaps reasoning."""
    tools = {name: schema(chance) for name in chance.sample(NAMES, 3)}
    calls = form.calls
    num = chance.choice((0, 1, 1, 2, 3)) if form.has_calls else 0
    num = min(num, 1) if calls is not None and calls.one else num
    made = [random_call(form, tools, chance) for _ in range(num)]
    content = chance.choice(PROSE) if (not made or chance.random() < 0.5) else ""
    if calls is not None and calls.bare and made:
        content = ""
    thought = chance.choice(PROSE) if form.has_reasoning and chance.random() < 0.7 else ""
    return Answer(form, tools, answer_text(form, made, content, thought), made, content, thought)


def schema(chance: random.Random) -> dict[str, Any]:
    """An object schema over KEYS."""
    kinds = {key: chance.choice(TYPES) for key in chance.sample(KEYS, chance.randint(0, 4))}
    return {
        "type": "object",
        "properties": {key: {} if kind == "any" else {"type": kind} for key, kind in kinds.items()},
    }


def random_call(form: Format, tools: dict[str, Any], chance: random.Random) -> Call:
    name = chance.choice(sorted(tools))
    parts = form.calls.call if form.calls is not None else ()
    properties = tools[name]["properties"]
    arguments = {key: value_of(properties[key].get("type", "any"), parts, chance) for key in properties}
    identity = "a1B2c3D4e" if form.calls is not None and form.calls.name == "mistral" and chance.random() < 0.5 else ""
    ascii_only = chance.random() < 0.3
    return Call(name, json.dumps(arguments, ensure_ascii=ascii_only), identity)


def value_of(kind: str, parts: Any, chance: random.Random, depth: int = 0) -> Any:
    """A value of the type; text that the dialect cannot write is left out."""
    if kind == "any":
        kind = chance.choice(TYPES[1:6] if Part.PARAMETERS in parts else TYPES[:6])
    if kind == "string":
        return chance.choice(TEXTS)
    if kind == "integer":
        return chance.choice((0, -1, 7, 10**20))
    if kind == "number":
        return chance.choice((0.5, -2.0, 1e-7, 3))
    if kind == "boolean":
        return chance.random() < 0.5
    inner = [value_of("any", (), chance, depth + 1) for _ in range(chance.randint(0, 2) if depth < 2 else 0)]
    return [*inner, None] if kind == "array" else dict(zip(KEYS, inner, strict=False))


def parsed(answer: Answer, pieces: list[str]) -> list[Said]:
    """What the parser says of the pieces, neighbouring texts joined."""
    parser = open_parser(answer.form, answer.tools)
    return joined([*(said for piece in pieces for said in parser.feed(piece)), *parser.end()])


def check(answer: Answer, said: list[Said]) -> None:
    """The answer's own content, reasoning and calls, and nothing else."""
    same_calls(calls_of(said), answer.calls, answer)
    assert content_of(said) == answer.content
    assert thought_of(said) == answer.thought
    names = [piece.index for piece in said if isinstance(piece, CallPart) and piece.name]
    assert names == list(range(len(answer.calls)))


def same_calls(got: list[Call], want: list[Call], answer: Answer) -> None:
    assert [call.name for call in got] == [call.name for call in want]
    for one, other in zip(got, want, strict=True):
        assert json.loads(one.arguments) == json.loads(other.arguments), answer.text
        if other.id:
            assert one.id == other.id


def no_marks(form: Format, said: list[Said]) -> None:
    content = content_of(said)
    assert not [mark for mark in form.marks if mark in content]


def cut(text: str, chance: random.Random) -> list[str]:
    """The text in pieces that end at any byte, as a detokenizer would pass them on: whole characters only."""
    data = text.encode()
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces, at = [], 0
    longest = chance.choice((1, 2, 4, 16, 64))
    while at < len(data):
        step = chance.randint(1, longest)
        pieces.append(decoder.decode(data[at : at + step]))
        at += step
    return pieces


def broken(answer: Answer, chance: random.Random) -> Answer:
    """The same text with a piece taken out, put in or moved: mostly malformed."""
    text = answer.text
    at, end = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
    mark = chance.choice([*answer.form.marks, "{", "}", '"', "\n", ",", "x", "<", "["])
    spoilt = chance.choice(
        (text[:at] + text[end:], text[:at] + mark + text[at:], text[:at], text[:end] + text[at:end] + text[end:],
         text[:at] + mark + text[at:end] + mark + text[end:])
    )  # fmt: skip
    return replace(answer, text=spoilt)


__all__ = ["HARMONY", "Calls"]
