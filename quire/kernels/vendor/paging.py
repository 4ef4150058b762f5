"""Block tables as lists of pages, one after the other: the form in which libraries of paged attention take them.

Knows: NumPy on the host. Does not know: any library.

Legend: S sequences, B blocks a table row, N pages of all sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]


def paged(seq_lens_S: Any, block_tables_SB: Any, block_size: int) -> tuple[Int32, Int32, Int32]:
    """(ends_S1, pages_N, last_S), int32: sequence s has pages_N[ends_S1[s]:ends_S1[s + 1]], of which the last one holds
    last_S[s] tokens, 1 to `block_size`. What stands in a table row beyond its sequence is left out.

    Raises ValueError where a sequence is empty or longer than its row of the tables.
    """
    counts_S = -(-seq_lens_S // block_size)
    num_seqs, width = block_tables_SB.shape
    if num_seqs and (counts_S.min() < 1 or counts_S.max() > width):
        raise ValueError(f"sequences of {counts_S.min()} to {counts_S.max()} blocks in tables of {width}")
    ends_S1 = np.zeros(num_seqs + 1, np.int32)
    np.cumsum(counts_S, out=ends_S1[1:])
    pages_N = block_tables_SB[np.arange(width) < counts_S[:, None]]
    last_S = (seq_lens_S - 1) % block_size + 1
    return ends_S1, np.ascontiguousarray(pages_N, np.int32), last_S.astype(np.int32)
