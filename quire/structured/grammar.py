"""A grammar compiled within limits, and the cache of those that are in use.

Knows: the vocabulary, and what a grammar may cost. Does not know: who asks, clocks (whoever compiles what a stranger
sent does it where it can be ended).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import llguidance
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from quire.errors import RequestError
from quire.limits import MAX_GRAMMAR_SIZE, MAX_LEXER_STATES
from quire.structured.source import EBNF
from quire.structured.vocabulary import Vocabulary

CACHE_BYTES = 2**26
OWNER_BYTES = 2**24
# A compiled grammar holds its text several times over, its rules, and the lexer's states: measured over 2,675 schemas
# as 60 to 400 kB beside some 60 bytes for each byte of text.
BYTES_PER_GRAMMAR = 2**17
BYTES_PER_BYTE = 64
MAX_MESSAGE = 300
EBNF_INSIDE = json.dumps(EBNF)[1:-1]


@dataclass(frozen=True, slots=True)
class Limits:
    """What compiling and one mask may use, in the library's units (50,000 of lexer fuel are 1 to 4 ms)."""

    initial_lexer_fuel: int = 1_000_000
    step_lexer_fuel: int = 200_000
    step_max_items: int = 50_000
    max_items_in_row: int = 2_000
    max_lexer_states: int = MAX_LEXER_STATES
    max_grammar_size: int = MAX_GRAMMAR_SIZE


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar: `start` stands at its beginning, never moves, and is copied for every answer."""

    text: str
    start: Any
    num_bytes: int


def compile_grammar(text: str, vocabulary: Vocabulary, limits: Limits | None = None) -> Grammar:
    """Compile `text` and compute its first mask. Raises `RequestError` for what cannot be compiled."""
    limits = limits or Limits()
    budget = llguidance.LLParserLimits(
        initial_lexer_fuel=limits.initial_lexer_fuel,
        step_lexer_fuel=limits.step_lexer_fuel,
        step_max_items=limits.step_max_items,
        max_items_in_row=limits.max_items_in_row,
        max_lexer_states=limits.max_lexer_states,
        max_grammar_size=limits.max_grammar_size,
        verbose_errors=False,
    )
    start = llguidance.LLMatcher(vocabulary.library, _as_lark(text), log_level=0, limits=budget)
    if not start.is_error():
        start.compute_bitmask()
    if start.is_error():
        raise refused(start.get_error())
    return Grammar(text, start, BYTES_PER_GRAMMAR + BYTES_PER_BYTE * len(text))


def refused(message: str) -> RequestError:
    """The library's message as ours: its first lines, in one."""
    text = re.sub(r"\s+", " ", message.split("<backtrace>")[0].split("<state>")[0]).strip()
    hint = None
    if "oneOf" in text:
        hint = "Use anyOf, or make the alternatives differ in a required constant."
    return RequestError(
        "the grammar cannot be compiled", got=text[:MAX_MESSAGE] or "no reason", hint=hint, code="invalid_grammar"
    )


def _as_lark(text: str) -> str:
    """The grammar with EBNF translated, also where it is a part of another one."""
    if text.startswith("{") and EBNF_INSIDE in text:
        parts = json.loads(text)
        for part in parts["grammars"]:
            part["lark_grammar"] = _as_lark(part.get("lark_grammar") or "") or None
        return json.dumps(parts)
    if not text.startswith(EBNF):
        return text
    try:
        lark: str = any_to_lark(text[len(EBNF) :])
    except (GbnfToLarkError, ValueError, RecursionError) as error:
        raise refused(f"EBNF: {error}") from None
    return lark


class GrammarCache:
    """Compiled grammars, the least recently used forgotten first, within a budget of bytes for all and each owner."""

    def __init__(self, vocabulary: Vocabulary, budget_bytes: int = CACHE_BYTES, owner_bytes: int = OWNER_BYTES) -> None:
        self.vocabulary = vocabulary
        self._budget_bytes, self._owner_bytes = budget_bytes, owner_bytes
        self._held: OrderedDict[tuple[str, str], Grammar] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """What is held now, as it is counted."""
        return sum([grammar.num_bytes for grammar in self._held.values()])

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._held

    def get(self, owner: str, text: str) -> Grammar:
        """The grammar of `text`, compiled now if it is not held. Raises `RequestError`."""
        found = self._held.get((owner, text))
        if found is None:
            found = compile_grammar(text, self.vocabulary)
            self.put(owner, found)
        self._held.move_to_end((owner, text))
        return found

    def put(self, owner: str, grammar: Grammar) -> None:
        """Hold `grammar` for `owner`, who gives up his own oldest ones first."""
        self._held[owner, grammar.text] = grammar
        mine = [key for key in self._held if key[0] == owner]
        while len(mine) > 1 and sum([self._held[key].num_bytes for key in mine]) > self._owner_bytes:
            del self._held[mine.pop(0)]
        while len(self._held) > 1 and self.num_bytes > self._budget_bytes:
            self._held.popitem(last=False)
