"""The message with which a step asks for its masks.

Knows: keys, rows, ids and texts. Does not know: grammars; importing it loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MaskOrder:
    """One step's work. `opens`: (key, owner, grammar) of answers not seen before, or forgotten. `fills`: (key, row of
    the buffer, tokens since the last fill, whether forced tokens may be told ahead). `closes`: keys that will not come
    again."""

    opens: tuple[tuple[int, str, str], ...]
    fills: tuple[tuple[int, int, tuple[int, ...], bool], ...]
    closes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Masked:
    """A `MaskOrder` is done. `failures`: (row, why) of what could not be filled. `forced`: (row, tokens) where one
    token alone may be drawn, the first of these, and the others must follow it."""

    failures: tuple[tuple[int, str], ...] = ()
    forced: tuple[tuple[int, tuple[int, ...]], ...] = ()
