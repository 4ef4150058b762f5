"""A text's tokens as windows of the model's context, overlapping, each target scored once.

Knows: token ids. Does not know: texts, models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """`ids` are read together; targets are `ids[first:]`, each predicted by the id before it. `first` is at least 1."""

    ids: tuple[int, ...]
    first: int

    @property
    def targets(self) -> tuple[int, ...]:
        """The ids whose predictions are scored."""
        return self.ids[self.first :]


def cut(ids: Sequence[int], length: int, stride: int, first_id: int | None = None) -> list[Window]:
    """Windows of `length` ids, `stride` apart; all but the first score only their last `stride` ids.

    So a scored id has at least `length - stride` ids before it, those of the first window excepted. `first_id` (the
    beginning of text) stands at the head of every window. What is left over at the end and shorter than `stride` is
    not scored. Raises ValueError if nothing would be.
    """
    head = () if first_id is None else (first_id,)
    body = length - len(head)
    if not 1 <= stride <= body - 1:
        raise ValueError("the stride must be at least 1 and less than the window")
    windows = []
    for start in range(0, len(ids) - body + 1, stride):
        whole = (*head, *ids[start : start + body])
        windows.append(Window(whole, length - stride if start else max(1, len(head))))
    if not windows and len(ids) > 1:
        windows.append(Window((*head, *ids), max(1, len(head))))
    if not windows:
        raise ValueError("the text has fewer than two tokens")
    return windows
