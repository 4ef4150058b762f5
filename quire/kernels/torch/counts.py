"""How often each token stands in the sequences that penalties look at: a table on the device.

Knows: places in the table and what is new in a sequence. Does not know: penalties.

Legend: S places, V vocabulary, U updates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.kernels.torch.lanes import Uploads

NEVER = -1


class CountsTable:
    """Places are taken by sequences and given back when their `Counts` are forgotten; all updates of a step are one
    copy and three launches. A table that is full grows by half: give it two places for each sequence of a step."""

    def __init__(self, uploads: Uploads, num_places: int, vocab_size: int, device: torch.device) -> None:
        self._uploads = uploads
        self.counts_SV = torch.full((num_places, vocab_size), NEVER, dtype=torch.int32, device=device)
        self._free = list(range(num_places))

    def take(self) -> int:
        """A place, which may still hold another sequence's counts."""
        if not self._free:
            old_SV = self.counts_SV
            more_SV = torch.full_like(old_SV[: max(len(old_SV) // 2, 1)], NEVER)
            self._free = list(range(len(old_SV), len(old_SV) + len(more_SV)))
            self.counts_SV = torch.cat([old_SV, more_SV])
        return self._free.pop()

    def give_back(self, place: int) -> None:
        """Nobody looks at it any more."""
        self._free.append(place)

    def update(self, counts_R: Sequence[Counts | None]) -> Tensor:
        """The table, after all that these sequences have caught up with."""
        updates = [counts.news() for counts in counts_R if counts is not None and counts.has_news]
        if not updates:
            return self.counts_SV
        fresh = [counts.place for counts in counts_R if counts is not None and counts.begin()]
        vocab_size = self.counts_SV.shape[1]
        news_2U = np.concatenate(updates, axis=1)
        news_2U = news_2U[:, (news_2U[0] % _STRIDE) < vocab_size]
        flat_U = news_2U[0] // _STRIDE * vocab_size + news_2U[0] % _STRIDE
        flat, answers, places = self._uploads.upload([flat_U, news_2U[1].astype(np.int32), np.array(fresh, np.int64)])
        table = self.counts_SV.view(-1)
        if fresh:
            self.counts_SV.index_fill_(0, places, NEVER)
        table[flat] = table[flat].clamp(min=0)
        table.index_add_(0, flat, answers)
        return self.counts_SV


_STRIDE = 2**21  # more than any vocabulary: (place, token) as one number


class Counts:
    """One sequence: `catch_up(history)` notes what was appended since; the table learns of it with all others' news."""

    __slots__ = ("_is_new", "_known", "_news", "_num_prompt", "_table", "place")

    def __init__(self, table: CountsTable, num_prompt: int) -> None:
        self._table, self._num_prompt, self._known = table, num_prompt, 0
        self._news: list[int] = []
        self._is_new = True
        self.place = table.take()

    @property
    def has_news(self) -> bool:
        """Whether the table does not know all of it."""
        return bool(self._news) or self._is_new

    def catch_up(self, history: Sequence[int]) -> None:
        """Note the tokens beyond those known."""
        self._news += history[self._known + len(self._news) :]

    def news(self) -> np.ndarray:
        """int64 [2, U]: place and token as one number, and 1 for a token of the answer."""
        tokens_U = np.array(self._news, np.int64)
        first = self._known
        self._known += len(self._news)
        self._news = []
        in_answer_U = np.arange(first, first + len(tokens_U)) >= self._num_prompt
        return np.stack([self.place * _STRIDE + tokens_U, in_answer_U.astype(np.int64)])

    def begin(self) -> bool:
        """True once: what the place held before is somebody else's."""
        was_new, self._is_new = self._is_new, False
        return was_new

    def __del__(self) -> None:
        self._table.give_back(self.place)
