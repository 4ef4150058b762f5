"""Works whose keys or values came out infinite or NaN, found by the op that stores them.

Knows: which rows belong to which work. Does not know: how a flaw is seen (`ops/rope_store.py`), or who asked.

What went wrong in a row of hidden states shows in the keys and values that the next layer makes of it, and what lies in
a page in the rows that read it. So the rows of one step tell of everything that the step kept, also where nobody reads
their logits; what the last layer makes of a row that draws is looked at with its logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quire.step import KV_NOT_FINITE, Work, WorkResult

SPOILT = WorkResult(error=KV_NOT_FINITE)


def without_flawed(works: Sequence[Work], flaws_T1: np.ndarray | None, results: list[WorkResult]) -> list[WorkResult]:
    """`results` with an error for every work that has a flawed row; `flaws_T1` (as in `Forward`) is zero again."""
    if flaws_T1 is None or not flaws_T1[0]:
        return results
    ends = np.cumsum([len(work.tokens) for work in works]).tolist()
    flawed = [bool(flaws_T1[1 + end - len(work.tokens) : 1 + end].any()) for work, end in zip(works, ends, strict=True)]
    flaws_T1[:] = 0
    return [SPOILT if bad else result for bad, result in zip(flawed, results, strict=True)]
