"""Where one answer stands in its grammar, and which tokens may come next.

Knows: one compiled grammar and the tokens so far. Does not know: logits, other answers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from quire.errors import RequestError
from quire.structured.grammar import Grammar, refused

MOST_BEGINNINGS = 64  # tokens that begin one text; where more are allowed, none is forced and nobody need ask


class Matcher:
    """One answer. End of text is allowed where the grammar is complete, and nowhere else."""

    __slots__ = ("_library", "num_tokens")

    def __init__(self, grammar: Grammar) -> None:
        self._library = grammar.start.deep_copy()
        self.num_tokens = 0

    @property
    def done(self) -> bool:
        """True once nothing but the end can follow."""
        return bool(self._library.is_stopped())

    @property
    def accepts(self) -> bool:
        """True where the answer could end here."""
        return bool(self._library.is_accepting())

    def fill(self, row: memoryview) -> None:
        """Set bit v % 32 of word v // 32 for every token v that may come next, and clear all others.

        `row`: writable, contiguous, 4 * ceil(V / 32) bytes. Raises `RequestError` if the grammar has become too
        costly to follow.
        """
        address = ctypes.addressof(ctypes.c_char.from_buffer(row))
        self._library.unsafe_compute_mask_ptr(address, row.nbytes)
        if self._library.is_error():
            raise refused(self._library.get_error())

    def accept(self, tokens: Sequence[int]) -> None:
        """Move past `tokens`. Raises `RequestError` at one that was not allowed."""
        if not self._library.consume_tokens(list(tokens)):
            raise refused(self._library.get_error() or "a token is not allowed")
        self.num_tokens += len(tokens)

    def rollback(self, num_tokens: int) -> None:
        """Take the last `num_tokens` back, as if they had never come."""
        if num_tokens and not self._library.rollback(num_tokens):
            raise RequestError("an answer cannot be taken back so far", got=num_tokens, allowed=self.num_tokens)
        self.num_tokens -= num_tokens

    def force(self, row: memoryview) -> tuple[int, ...]:
        """Tokens that must come next, where there are any; the filled `row` then allows the first of them alone.

        Several tokens begin a forced text as well as the tokenizer's own do: without this one of them may be drawn.
        """
        if int.from_bytes(row).bit_count() > MOST_BEGINNINGS:
            return ()
        tokens = tuple(self.forced())
        if tokens:
            row[:] = bytes(row.nbytes)
            row[tokens[0] // 8] = 1 << tokens[0] % 8
        return tokens

    def forced(self) -> list[int]:
        """Tokens that must come next, as the tokenizer writes them; none where there is a choice."""
        return list(self._library.compute_ff_tokens())
