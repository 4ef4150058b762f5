"""What one step hands to the model.

Knows: arrays and where they live. Does not know: requests, or who built it (`runner/inputs.py` does).

Legend: T tokens in the step, S sequences in the step, B blocks a table row, R rows whose logits are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from quire.ops.device import Device
    from quire.ops.kv_cache import KVCache

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Forward:
    """One step. Arrays are C-contiguous int32.

    Sequence s owns rows `query_starts_S1[s]:query_starts_S1[s + 1]`, which are the last positions of its
    `seq_lens_S[s]` tokens. Row t stands at `positions_T[t]`; its K and V go to slot `slots_T[t]` = block * block_size +
    offset; `block_tables_SB` lists the blocks of every sequence, padded with anything. `rows_R` is what `Model.forward`
    makes logits of; None is every row. With `flaws_T1` (int32, T + 1 zeros) elements 0 and 1 + t become 1 where row t
    stores keys or values that are not finite. `last` is what `ends` gives for the sequences that draw, where the
    builder has made it already: so a GPU's inputs travel in one copy. `planned` is what `ops/attention.py` takes under
    that name.
    """

    device: Device
    arena: Any
    ids_T: Int32
    positions_T: Int32
    slots_T: Int32
    query_starts_S1: Int32
    seq_lens_S: Int32
    block_tables_SB: Int32
    kv: KVCache
    rows_R: Int32 | None = None
    flaws_T1: Int32 | None = None
    last: tuple[Int32, Forward] | None = None
    planned: Any | None = None

    def ends(self, seqs_R: Int32) -> tuple[Int32, Forward]:
        """Rows of the last tokens of sequences `seqs_R`, and the step of these rows alone, whose K and V are stored."""
        if self.last is not None:
            return self.last
        rows_R = self.query_starts_S1[seqs_R + 1] - 1
        return rows_R, replace(
            self,
            ids_T=self.ids_T[rows_R],
            positions_T=self.positions_T[rows_R],
            slots_T=self.slots_T[rows_R],
            query_starts_S1=np.arange(len(seqs_R) + 1, dtype=np.int32),
            seq_lens_S=self.seq_lens_S[seqs_R],
            block_tables_SB=self.block_tables_SB[seqs_R],
            planned=None,
        )
