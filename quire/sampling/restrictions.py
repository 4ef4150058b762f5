"""Which tokens bad words and allow-lists leave to the rows of a step, as bits beside those of grammars.

    allow-list, bad words of one token    the same bits every step: made once for a draw
    longer bad words                      a bit goes where the answer ends with all tokens but the last

Knows: draws, ids and bits. Does not know: how words became ids, how a token is chosen.

Legend: R rows, V vocabulary, W words of 32 tokens, S longer bad words of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np

from quire.step import Draw

_NOTHING_YET = -1


@dataclass(frozen=True, slots=True)
class Restriction:
    """What one draw may never be: `bits_W` uint32 of what it may, and the bad words of two and more tokens."""

    bits_W: np.ndarray
    longer: tuple[tuple[int, ...], ...]


def make_restriction(draw: Draw, vocab_size: int) -> Restriction | None:
    """The restriction of `draw`, None if it has none. Ids beyond the vocabulary cannot be drawn anyway."""
    if not draw.is_restricted:
        return None
    allowed = draw.params.allowed_token_ids
    may_V = np.full(-(-vocab_size // 32) * 32, allowed is None)
    if allowed is not None:
        ids = np.asarray(allowed, np.int64)
        may_V[ids[ids < vocab_size]] = True
    may_V[[tokens[0] for tokens in draw.bad_sequences if len(tokens) == 1 and tokens[0] < vocab_size]] = False
    longer = tuple(tokens for tokens in draw.bad_sequences if len(tokens) > 1 and tokens[-1] < vocab_size)
    return Restriction(np.packbits(may_V, bitorder="little").view("<u4"), longer)


class RestrictedRows:
    """The restrictions of rows that stand together in a step, as long as they do."""

    def __init__(self, draws: SequenceOf[Draw], restrictions: SequenceOf[Restriction | None]) -> None:
        self._draws = draws
        self._formed_R = np.array([draw.constraint is not None for draw in draws])
        num_words = next(len(each.bits_W) for each in restrictions if each is not None)
        self._bits_RW = np.full((len(draws), num_words), 0xFFFFFFFF, np.uint32)
        for row, each in enumerate(restrictions):
            if each is not None:
                self._bits_RW[row] = each.bits_W
        longer = [(row, tokens) for row, each in enumerate(restrictions) if each for tokens in each.longer]
        self._longer = longer
        self._row_S = np.array([row for row, _ in longer], np.int64)
        self._before_S = np.array([tokens[-2] for _, tokens in longer], np.int64)

    def mask(self, mask_RW: np.ndarray | None) -> np.ndarray:
        """int32 [R, W]: the bits that these rows may still be, among those of `mask_RW` in rows with a constraint.

        Rows without either hold anything. At 151,936 tokens: one row with 1024 longer bad words 8 us, 32 rows with an
        allow-list each 17 us (768 when the bits of every row were gathered anew), with 32 longer bad words each 34 us.
        """
        bits_RW = self._bits_RW.copy()
        if mask_RW is not None:
            bits_RW[self._formed_R] &= mask_RW.view(np.uint32)[self._formed_R]
        for row, token in self._completing():
            bits_RW[row, token >> 5] &= np.uint32(0xFFFFFFFF ^ (1 << (token & 31)))
        return bits_RW.view(np.int32)

    def _completing(self) -> list[tuple[int, int]]:
        """(row, token) of every token that would complete a longer bad word."""
        if not self._longer:
            return []
        newest_R = np.array([_newest(draw) for draw in self._draws], np.int64)
        near = np.flatnonzero(self._before_S == newest_R[self._row_S]).tolist()
        return [
            (row, tokens[-1])
            for row, tokens in map(self._longer.__getitem__, near)
            if _ends_with(self._draws[row], tokens[:-1])
        ]


def _newest(draw: Draw) -> int:
    return draw.history[-1] if len(draw.history) > draw.num_prompt else _NOTHING_YET


def _ends_with(draw: Draw, tokens: tuple[int, ...]) -> bool:
    """Whether the answer ends with `tokens`; those of the prompt do not count."""
    start = len(draw.history) - len(tokens)
    return start >= draw.num_prompt and tuple(draw.history[start:]) == tokens
