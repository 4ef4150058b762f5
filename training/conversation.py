"""The nouns of the training text: a conversation, and a held-out question with its check.

Knows the OpenAI shape of messages and tools; knows no tokens and no template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]  # {"role", "content", maybe "tool_calls"}
Tool = Mapping[str, Any]  # {"type": "function", "function": {"name", "description", "parameters"}}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, and the tools that the system turn lists."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A question that training never shows; `check` says whether an answer is right, `right` is one that is."""

    messages: tuple[Message, ...]
    right: str
    check: Callable[[str], bool]
    tools: tuple[Tool, ...] = ()


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def exchange(question: str, answer: str) -> Conversation:
    """One question and its answer."""
    return Conversation((user(question), assistant(answer)))
