"""How the served model speaks, and how one chat answer of it is read: its format, its tools, its reasoning.

Knows: the format of the template, tokens of its marks. Does not know: chunks, the engine, HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quire.errors import RequestError, UnsupportedField
from quire.limits import MAX_THINKING_TOKENS
from quire.server.calling import Calling
from quire.text.formats.detect import Detected, detect
from quire.text.formats.dialect import Format
from quire.text.formats.grammar import Asked, constraint
from quire.text.formats.parser import Parser, open_parser, starts_in_thought
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
LEVELS: Mapping[str, str] = {"none": "low", "minimal": "low", "xhigh": "high"}  # what templates know: low to high
SWITCHES = ("enable_thinking", "thinking")


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the served model writes. special: its marks that are special tokens. close: the token that ends reasoning.

    variables: what the template reads besides messages and tools.
    """

    detected: Detected = field(default_factory=lambda: Detected(Format()))
    special: Mapping[str, int] = field(default_factory=dict)
    close: int | None = None
    variables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, template: ChatTemplate, tokenizer: Tokenizer, tool_format: str, reasoning_format: str) -> Spoken:
        """Found by probing the template, or as the operator says. Raises `InvalidSetting`."""
        detected = detect(template, tool_format, reasoning_format)
        form = detected.form
        ids = {mark: tokenizer.id_of(mark) for mark in sorted(form.tokens)}
        special = {mark: token for mark, token in ids.items() if token is not None and token in tokenizer.special_ids}
        ends = form.channels.ends[0] if form.channels else form.reasoning.closes if form.reasoning else ""
        return cls(detected, special, ids.get(ends), template.variables)

    def describe(self) -> str:
        """One line for people."""
        detected = self.detected
        notes = [] if detected.shows_tools else ["the template shows no tools"]
        notes += ["calls are not in the template"] if detected.form.has_calls and not detected.reads_back else []
        more = f" ({'; '.join(notes)})" if notes else ""
        return f"tool calls {detected.tool_format}, reasoning {detected.reasoning_format}{more}"

    def check(self, calling: Calling) -> None:
        """Refuse tools that the model would never see, or whose calls could not be read."""
        if calling.shown is None:
            return
        if not self.detected.shows_tools or not self.detected.form.has_calls:
            raise UnsupportedField(
                "this model's chat template has no tools"
                if not self.detected.shows_tools
                else "this model writes tool calls in a way that is not known",
                hint="Start the server with --tool-format to say how its calls are to be read.",
                param="tools",
            )

    def template_kwargs(self, effort: str | None) -> dict[str, Any]:
        """What `reasoning_effort` means to the template. Raises `RequestError` where it would mean nothing."""
        if effort is None:
            return {}
        if effort not in EFFORTS:
            raise RequestError(
                "reasoning_effort is not usable", got=effort, allowed=", ".join(EFFORTS), param="reasoning_effort"
            )
        switches = {name: effort != "none" for name in SWITCHES if name in self.variables}
        has_levels = "reasoning_effort" in self.variables
        means_nothing = not switches and not has_levels and effort not in ("none", "medium")
        cannot_stop = not switches and effort == "none" and self.detected.form.has_reasoning
        if means_nothing or cannot_stop:
            raise UnsupportedField(
                "this model's chat template knows no reasoning_effort"
                if means_nothing
                else "this model always reasons",
                got=effort,
                allowed="absent or medium",
                param="reasoning_effort",
            )
        return {**switches, **({"reasoning_effort": LEVELS.get(effort, effort)} if has_levels else {})}

    def speech(
        self, calling: Calling, prompt: str, budget: int | None, tells_thought: bool, content: str | None = None
    ) -> Speech:
        """How the answer to `prompt` is read, and what it may be; `content` is the grammar of its content, which
        stands alone where all of the answer is content."""
        form = self.detected.form
        in_thought = starts_in_thought(form, prompt)
        if budget is not None and not 0 <= budget <= MAX_THINKING_TOKENS:
            raise RequestError(
                "thinking_token_budget is out of range",
                got=budget,
                allowed=f"0 to {MAX_THINKING_TOKENS}",
                param="thinking_token_budget",
            )
        if budget is not None and (not form.has_reasoning or self.close is None):
            raise UnsupportedField("this model's reasoning cannot be limited", param="thinking_token_budget")
        required: Literal["required", "auto"] = "required" if calling.choice == "required" else "auto"
        is_plain = not form.has_reasoning and not calling.tools
        asked = Asked(calling.tools, required, calling.is_many, budget, None if is_plain else content)
        return Speech(
            form,
            {tool.name: tool.parameters for tool in calling.tools},
            calling.is_many,
            in_thought,
            tells_thought,
            frozenset(self.special.values()),
            constraint(form, asked, self.special, close=self.close, in_thought=in_thought),
        )


@dataclass(frozen=True, slots=True)
class Speech:
    """How one answer is read. tools: names to schemas. shown: special tokens that the reader of the text must see.

    grammar: what the answer may be, None where it is free.
    """

    form: Format
    tools: Mapping[str, Any]
    is_many: bool = True
    in_thought: bool = False
    tells_thought: bool = True
    shown: frozenset[int] = frozenset()
    grammar: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the text is all content."""
        return not self.form.has_reasoning and not self.tools

    def parser(self) -> Parser:
        """A reader for one sample."""
        return open_parser(self.form, self.tools, in_thought=self.in_thought)

    def call_id(self, answer: str, choice: int, index: int, name: str, written: str) -> str:
        """The id of a call: the model's own where it wrote one, else made from the answer's."""
        ids = self.form.calls.ids if self.form.calls is not None else "any"
        if written and (ids != "nine" or len(written) == 9):
            return written
        if ids == "numbered":
            return f"functions.{name}:{index}"
        digest = hashlib.sha256(f"{answer} {choice} {index}".encode()).hexdigest()
        return digest[:9] if ids == "nine" else f"call_{digest[:24]}"
