"""What an answer says, piece by piece: content, reasoning, parts of tool calls.

Knows: the three kinds of pieces. Does not know: how they are written (`dialect.py`) or told (HTTP).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """Text of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """News of call `index`: its name (once, first), or more text of its arguments, which are JSON.

    `id` is what the model itself wrote as the call's id, "" where it wrote none before the arguments.
    """

    index: int
    arguments: str = ""
    name: str = ""
    id: str = ""


Said = Content | Thought | CallPart


@dataclass(frozen=True, slots=True)
class Call:
    """A whole call. `arguments` is JSON text; only a call that was cut off or broken holds anything else."""

    name: str
    arguments: str
    id: str = ""


def joined(pieces: Iterable[Said]) -> list[Said]:
    """The same news with neighbouring texts of one kind in one piece; a call's name keeps its own."""
    told: list[Said] = []
    for piece in pieces:
        last = told[-1] if told else None
        if isinstance(piece, (Content, Thought)) and type(last) is type(piece):
            told[-1] = replace(piece, text=last.text + piece.text)
        elif isinstance(piece, CallPart) and not piece.name and isinstance(last, CallPart) and not last.name:
            told[-1] = replace(last, arguments=last.arguments + piece.arguments)
        else:
            told.append(piece)
    return told


def calls_of(pieces: Iterable[Said]) -> list[Call]:
    """The calls that the pieces make up."""
    calls: list[Call] = []
    for piece in pieces:
        if isinstance(piece, CallPart) and piece.name:
            calls.append(Call(piece.name, piece.arguments, piece.id))
        elif isinstance(piece, CallPart):
            calls[piece.index] = replace(calls[piece.index], arguments=calls[piece.index].arguments + piece.arguments)
    return calls


def content_of(pieces: Iterable[Said]) -> str:
    """All content."""
    return "".join([piece.text for piece in pieces if isinstance(piece, Content)])


def thought_of(pieces: Iterable[Said]) -> str:
    """All reasoning."""
    return "".join([piece.text for piece in pieces if isinstance(piece, Thought)])
