"""The description of a dialect: its marks, and a tool call as a pattern of parts. Plain data.

White space in a pattern's texts is written as it stands and read as any white space or none: models are not exact
about it. A mark is a text that never reaches content, whatever stands around it.

Knows: what dialects have in common. Does not know: any dialect (`catalogue.py`), how text is read or written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal


class Part(Enum):
    """What stands between the fixed texts of a call."""

    NAME = auto()  # the tool's name
    NUMBER = auto()  # a number that is part of the id
    ID = auto()  # an id
    JSON = auto()  # the arguments as a JSON object
    OBJECT = auto()  # a JSON object that holds name and arguments: `Calls.keys`
    PARAMETERS = auto()  # the arguments one by one between marks: `Calls.parameter`
    KEYWORDS = auto()  # the arguments one by one as key and literal: `Calls.keywords`


@dataclass(frozen=True, slots=True)
class Maybe:
    """Parts that a model leaves out at times. We write them where `written`."""

    parts: tuple[str | Part, ...]
    written: bool = True


Pattern = tuple[str | Part | Maybe, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`before` key `middle` pad value pad `after`. A string stands as it is, everything else as JSON."""

    before: str
    middle: str
    after: str
    pad: str = ""


@dataclass(frozen=True, slots=True)
class Keywords:
    """`open` key `assign` literal, ... `close`.

    quotes: what may stand around a string. escapes: whether a backslash means something inside.
    """

    open: str
    assign: str
    close: str
    quotes: tuple[str, ...]
    escapes: bool


@dataclass(frozen=True, slots=True)
class Calls:
    """How tool calls are written: `begin` `open` call `between` call `shut` `end`.

    starts: marks at which a call, or with `is_list` the list of calls, may begin. noise: further marks, which mean
    nothing where they stand alone. bare: a call may begin without a mark, where the answer begins.
    keys: of OBJECT: the name's, and what the arguments may be called, the one that we write first.
    ids: what the template wants an id to look like. one: the template writes at most one call in a message.
    """

    name: str
    call: Pattern
    starts: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    begin: str = ""
    open: str = ""
    between: str = ""
    shut: str = ""
    end: str = ""
    is_list: bool = False
    bare: bool = False
    keys: tuple[str, ...] = ("name", "arguments", "parameters")
    parameter: Parameter | None = None
    keywords: Keywords | None = None
    ids: Literal["any", "nine", "numbered"] = "any"
    one: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that never reach content."""
        return self.starts + self.noise


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How reasoning is marked: `opens` text `closes`. noise: marks around the rest of the answer, which say nothing.

    pad: what is written inside the marks. gap: what is written between the end of reasoning and content.
    """

    name: str
    opens: str
    closes: str
    noise: tuple[str, ...] = ()
    pad: str = "\n"
    gap: str = "\n\n"

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that never reach content."""
        return (self.opens, self.closes, *self.noise)


@dataclass(frozen=True, slots=True)
class Channels:
    """A dialect that writes all of an answer as messages: header `message` body, ended by one of `ends`.

    The header names a channel after `channel`, and a recipient after "to=" where the message is a call.
    """

    name: str
    start: str
    channel: str
    constrain: str
    message: str
    ends: tuple[str, ...]
    call_end: str
    thought: str
    content: tuple[str, ...]
    call: str
    prefix: str

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that never reach content."""
        return (self.start, self.channel, self.constrain, self.message, *self.ends)


@dataclass(frozen=True, slots=True)
class Format:
    """What one model writes. Without `calls` or `reasoning` it has none, or none that we know."""

    calls: Calls | None = None
    reasoning: Reasoning | None = None
    channels: Channels | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that never reach content."""
        parts = [part.marks for part in (self.calls, self.reasoning, self.channels) if part is not None]
        return tuple(dict.fromkeys(mark for marks in parts for mark in marks))

    @property
    def tokens(self) -> frozenset[str]:
        """Texts that a tokenizer may treat as special and that must be seen nevertheless."""
        more: tuple[str, ...] = ()
        if self.calls is not None:
            parts = [
                inner for part in self.calls.call for inner in (part.parts if isinstance(part, Maybe) else (part,))
            ]
            more = tuple(chunk for part in parts if isinstance(part, str) for chunk in part.split())
            if self.calls.keywords is not None:
                more += self.calls.keywords.quotes
        return frozenset((*self.marks, *more))

    @property
    def has_calls(self) -> bool:
        """Whether tool calls can be read at all."""
        return self.calls is not None or self.channels is not None

    @property
    def has_reasoning(self) -> bool:
        """Whether reasoning can be told from content."""
        return self.reasoning is not None or self.channels is not None


_CHUNK = re.compile(r"\s+|\S+")


def chunks(text: str) -> list[str]:
    """A pattern's text as alternating solid texts and white space."""
    return _CHUNK.findall(text)
