"""The message with which a step asks for its masks.

Knows: keys, rows, ids and texts. Does not know: grammars; importing it loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MaskOrder:
    """One step's work. `opens`: (key, owner, grammar) of answers not seen before, or forgotten. `fills`: (key, row of
    the buffer, tokens since the last fill). `closes`: keys that will not come again."""

    opens: tuple[tuple[int, str, str], ...]
    fills: tuple[tuple[int, int, tuple[int, ...]], ...]
    closes: tuple[int, ...] = ()
