"""Which steps go through another library, and what happens when it fails at one: it is given up, and steps go on as
without it.

Knows: kinds of steps. Does not know: why a kind was chosen; that is only told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quire.attention_shape import KINDS, kind_of
from quire.kernels.vendor.flashinfer import FAILURES, FlashInfer, Planned, told

NAMES = {"tokens": "single tokens", "prompts": "prompts", "mixed": "both in a step"}


class Chosen:
    """`kinds` says for each kind of step that FlashInfer computes why it does, `others` why it does not."""

    def __init__(self, library: FlashInfer, kinds: Mapping[str, str], others: Mapping[str, str]) -> None:
        self._library, self._kinds, self._others = library, dict(kinds), dict(others)
        self.problem = ""

    @property
    def label(self) -> str:
        """What computes what, in a few words; empty where it computes nothing."""
        told_kinds = [NAMES[kind] for kind in KINDS if kind in self._kinds]
        return f"{self._library.name} for {', '.join(told_kinds)}" if told_kinds else ""

    def plan(self, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> Planned | None:
        """A step that is launched once, planned; None where our own kernel computes it."""
        kind = kind_of(np.diff(query_starts_S1).tolist()) if self._is_on and len(seq_lens_S) else ""
        if kind not in self._kinds:
            return None
        planned = self._library.step(kind)
        return planned if self.fill(planned, query_starts_S1, seq_lens_S, block_tables_SB) else None

    def recorded(self, num_seqs: int) -> Planned | None:
        """For steps of so many single tokens that are recorded; None where our own kernel computes them."""
        if not self._is_on or "tokens" not in self._kinds:
            return None
        try:
            return self._library.recorded(num_seqs)
        except FAILURES as failed:
            self._give_up(failed)
            return None

    def fill(self, planned: Planned, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> bool:
        """Plan the next step; False if that failed: from now on our own kernels compute everything."""
        try:
            planned.fill(query_starts_S1, seq_lens_S, block_tables_SB)
        except FAILURES as failed:
            self._give_up(failed)
            return False
        return True

    def explain(self, own: str) -> list[tuple[str, str, str]]:
        """Rows (op, implementation, why); `own` is the name of our own kernel."""
        rows = []
        for kind in KINDS:
            if kind in self._kinds or kind in self._others:
                by = self._library.name if kind in self._kinds and self._is_on else own
                why = self._kinds.get(kind, self._others.get(kind, ""))
                rows.append((f"attention: {NAMES[kind]}", by, self.problem or why))
        return rows

    @property
    def _is_on(self) -> bool:
        return not self.problem

    def _give_up(self, failed: Exception) -> None:
        self.problem = f"{self._library.name} failed at a step and was given up: {told(failed)}"
