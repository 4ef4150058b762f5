"""Which dialect a chat template writes: found by rendering a call and some reasoning, and reading them back.

A dialect is taken where the call that the template wrote, parsed, is the call that it was given; failing that, where
the template tells the model about its marks (a template that shows tools and leaves calls out).

Knows: templates and the catalogue. Does not know: names of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.errors import InvalidSetting, RequestError
from quire.text.formats.catalogue import REASONING_FORMATS, TOOL_FORMATS
from quire.text.formats.dialect import Calls, Channels, Format, Reasoning
from quire.text.formats.parser import open_parser, starts_in_thought
from quire.text.formats.said import Said, calls_of, joined, thought_of
from quire.text.template import ChatTemplate

_NAME, _ARGUMENTS = "probe_tool", {"alpha": "first value", "beta": 2}
_QUESTION, _ANSWER, _THOUGHT = "A probing question", "A probing answer", "A probing thought"
_SCHEMA = {"type": "object", "properties": {"alpha": {"type": "string"}, "beta": {"type": "integer"}}}
_TOOLS = [{"type": "function", "function": {"name": _NAME, "description": "Probes", "parameters": _SCHEMA}}]
_CALL = {"id": "abcdef123", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
_THINKING: tuple[Mapping[str, Any], ...] = (
    {}, {"enable_thinking": True, "thinking": True}, {"enable_thinking": False, "thinking": False},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detected:
    """What a template writes. shows_tools: the model is told about tools. reads_back: a rendered call was read back."""

    form: Format
    shows_tools: bool = False
    reads_back: bool = False

    @property
    def tool_format(self) -> str:
        """Name of the way in which calls are written, "none" without one."""
        return (self.form.channels or self.form.calls or _NONE).name

    @property
    def reasoning_format(self) -> str:
        """Name of the way in which reasoning is marked, "none" without one."""
        return (self.form.channels or self.form.reasoning or _NONE).name


@dataclass(frozen=True, slots=True)
class _None:
    name: str = "none"


_NONE = _None()


def detect(template: ChatTemplate, tool_format: str = "auto", reasoning_format: str = "auto") -> Detected:
    """The format of a template. Names other than "auto" are taken as they are; "none" is no format at all.

    Raises `InvalidSetting` where one of the two names a dialect that is the whole answer's, and the other another one.
    """
    shown = _Shown.of(template)
    calls, reads_back = _calls(shown) if tool_format == "auto" else (TOOL_FORMATS.get(tool_format), False)
    reasoning = _reasoning(shown) if reasoning_format == "auto" else REASONING_FORMATS.get(reasoning_format)
    if isinstance(calls, Channels) and reasoning_format == "auto":
        reasoning = calls
    if isinstance(reasoning, Channels) and tool_format == "auto":
        calls = reasoning
    shows = shown.tools or tool_format not in ("auto", "none")
    if isinstance(calls, Channels) and isinstance(reasoning, Channels):
        return Detected(Format(channels=calls), shows, reads_back)
    if isinstance(calls, Channels) or isinstance(reasoning, Channels):
        raise InvalidSetting(
            "--tool-format and --reasoning-format do not go together",
            got=f"{tool_format} and {reasoning_format}",
            hint="Harmony is the format of a whole answer: choose it for both.",
            param="tool_format",
        )
    return Detected(Format(calls=calls, reasoning=reasoning), shows, reads_back)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the template writes when it is probed; "" where it refuses.

    prompts: a question with and without thinking. with_tools: the same with a tool. call, thought, both: answers.
    """

    prompts: tuple[str, ...]
    with_tools: str
    call: str
    thought: str
    both: str

    @classmethod
    def of(cls, template: ChatTemplate) -> _Shown:
        question = [{"role": "user", "content": _QUESTION}]

        def answered(content: str, **fields: Any) -> str:
            turns = [*question, {"role": "assistant", "content": content, **fields}]
            tools = _TOOLS if "tool_calls" in fields else None
            return _render(template, turns, tools, add_generation_prompt=False)

        return cls(
            tuple(_render(template, question, None, kwargs=kwargs) for kwargs in _THINKING),
            _render(template, question, _TOOLS),
            answered("", tool_calls=[_CALL]),
            answered(_ANSWER, reasoning_content=_THOUGHT),
            answered("", reasoning_content=_THOUGHT, tool_calls=[_CALL]),
        )

    @property
    def tools(self) -> bool:
        """Whether the model sees the tools."""
        return _NAME in self.with_tools

    def tails(self, text: str, prompt: str) -> Iterator[tuple[str, str]]:
        """(what comes before it, the answer) of a rendered conversation, cut in the two places where it may begin."""
        common = next(
            (place for place, pair in enumerate(zip(text, prompt, strict=False)) if pair[0] != pair[1]), len(prompt)
        )
        after = text.rfind(_QUESTION) + len(_QUESTION)
        for place in (common, after) if text else ():
            yield text[:place], text[place:]


def _render(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any, **settings: Any) -> str:
    try:
        return template.render(messages, tools=tools, **settings)
    except RequestError:
        return ""


def _calls(shown: _Shown) -> tuple[Calls | Channels | None, bool]:
    for each in TOOL_FORMATS.values():
        form = Format(channels=each) if isinstance(each, Channels) else Format(calls=each)
        for _, tail in shown.tails(shown.call, shown.with_tools):
            calls = calls_of(_read(form, tail))
            if len(calls) == 1 and calls[0].name == _NAME and json.loads(calls[0].arguments) == _ARGUMENTS:
                return each, True
    for each in TOOL_FORMATS.values():
        if isinstance(each, Calls) and not each.bare:
            mark = each.starts[0]
            if mark in shown.with_tools and mark not in shown.prompts[0]:
                return each, False
    return None, False


def _reasoning(shown: _Shown) -> Reasoning | Channels | None:
    for each in REASONING_FORMATS.values():
        form = Format(channels=each) if isinstance(each, Channels) else Format(reasoning=each)
        texts = (*shown.prompts, shown.thought, shown.both)
        if isinstance(each, Reasoning):
            in_thought = any(starts_in_thought(form, prompt) for prompt in shown.prompts)
            if any(all(mark in text for mark in each.marks) for text in texts) or (in_thought and not each.noise):
                return each
            if each.noise:
                continue
        for text, prompt in ((shown.thought, shown.prompts[0]), (shown.both, shown.with_tools)):
            for before, tail in shown.tails(text, prompt):
                if thought_of(_read(form, tail, starts_in_thought(form, before))) == _THOUGHT:
                    return each
    return None


def _read(form: Format, text: str, in_thought: bool = False) -> list[Said]:
    parser = open_parser(form, {_NAME: _SCHEMA}, in_thought=in_thought)
    return joined([*parser.feed(text), *parser.end()])
