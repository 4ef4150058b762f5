"""What the payloads of advisories are made with: a right request with something wrong in it.

Knows: the two routes that generate. Does not know: the classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from chaos.entry import Step
from chaos.http_text import (
    CHAT,
    COMPLETIONS,
    head,
    post,
    usual,
)

Steps = Step | tuple[Step, ...]
MESSAGES = [{"role": "user", "content": "Hello"}]
LIMIT_BYTES = 4 * 2**20


def complete(**fields: object) -> str:
    """A completion of two tokens, with these fields."""
    return post(COMPLETIONS, {"prompt": "Once", "max_tokens": 2, **fields})


def chat(**fields: object) -> str:
    """A chat of two tokens, with these fields."""
    return post(CHAT, {"messages": MESSAGES, "max_tokens": 2, **fields})


def both(**fields: object) -> list[str]:
    """One of each."""
    return [complete(**fields), chat(**fields)]


def each(name: str, values: Iterable[object]) -> list[str]:
    """One of each for every value of one field."""
    return [text for value in values for text in both(**{name: value})]


def long(path: str, before: str, unit: str, times: int, after: str) -> tuple[Step, ...]:
    """A POST whose body has `unit` so many times over in its middle."""
    total = len(before) + len(unit) * times + len(after)
    return (head("POST", path, usual(total)) + before, (unit, times), after)
