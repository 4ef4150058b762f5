"""Step -> Forward: the only place where a step's lists become arrays.

Knows: works and block tables. Does not know: the model, or who runs next.

Legend: T tokens in the step, S sequences in the step, B blocks a table row, R rows whose logits are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quire.layers.forward import Forward
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.step import Step, Work


@dataclass(frozen=True, slots=True)
class Machine:
    """What every step of one runner shares: where it computes and what it computes in."""

    device: Device
    arena: Arena
    kv: KVCache
    block_size: int


def build_forward(step: Step, machine: Machine) -> Forward:
    """One frozen bundle of int32 arrays for `step`.

    Row order is work order; a work's rows are consecutive. `rows_R` is left empty: the runner asks for logits in
    slices (`want_rows`), so that prompt log probabilities never need a vocabulary-sized row for every token at once.
    """
    works = step.works
    starts_S = np.fromiter((work.start for work in works), np.int32, len(works))
    counts_S = np.fromiter((len(work.tokens) for work in works), np.int32, len(works))
    query_starts_S1 = np.zeros(len(works) + 1, np.int32)
    np.cumsum(counts_S, out=query_starts_S1[1:])
    tables_SB = _block_tables(works)
    ids_T = np.fromiter((token for work in works for token in work.tokens), np.int32, step.num_tokens)
    positions_T = np.arange(ids_T.size, dtype=np.int32) + np.repeat(starts_S - query_starts_S1[:-1], counts_S)
    blocks_T = tables_SB[np.repeat(np.arange(len(works)), counts_S), positions_T // machine.block_size]
    return Forward(
        device=machine.device,
        arena=machine.arena,
        ids_T=ids_T,
        positions_T=positions_T,
        slots_T=blocks_T * np.int32(machine.block_size) + positions_T % np.int32(machine.block_size),
        query_starts_S1=query_starts_S1,
        seq_lens_S=starts_S + counts_S,
        block_tables_SB=tables_SB,
        kv=machine.kv,
        flaws_T1=np.zeros(ids_T.size + 1, np.int32),
    )


def _block_tables(works: tuple[Work, ...]) -> np.ndarray:
    width = max(len(work.block_table) for work in works)
    tables_SB = np.zeros((len(works), width), np.int32)
    for row, work in zip(tables_SB, works, strict=True):
        row[: len(work.block_table)] = work.block_table
    return tables_SB
