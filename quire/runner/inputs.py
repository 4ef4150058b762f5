"""Step -> Forward: the only place where a step's lists become arrays.

Knows: works and block tables. Does not know: the model, or who runs next.

Legend: T tokens in the step, S sequences in the step, B blocks a table row, R rows whose logits are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quire.layers.forward import Forward
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.plan import HEAD_ROWS
from quire.step import Step, Work

ARRAYS = ("ids_T", "positions_T", "slots_T", "query_starts_S1", "seq_lens_S", "block_tables_SB")


@dataclass(frozen=True, slots=True)
class Machine:
    """What every step of one runner shares: where it computes and what it computes in.

    Logits are made for `head_rows` rows at a time.
    """

    device: Device
    arena: Any
    kv: KVCache
    block_size: int
    head_rows: int = HEAD_ROWS


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


def on_device(forward: Forward, drawing: Sequence[int]) -> Forward:
    """`forward` with its arrays on its device, and with what the last rows of sequences `drawing` need: one copy.

    Where the ops read NumPy arrays it is `forward` itself. What the device plans on the host for attention it plans of
    the whole step; the last rows, which one layer alone computes, are not worth a plan of their own.
    """
    device = forward.device
    if device.kind == "cpu":
        return forward
    rows_R, last = forward.ends(np.array(drawing, np.int32))
    steps = (forward, last)
    there = device.put_all([getattr(step, name) for step in steps for name in ARRAYS] + [rows_R, forward.flaws_T1])
    moved = [
        replace(step, **dict(zip(ARRAYS, there[first:], strict=False)))
        for step, first in zip(steps, (0, len(ARRAYS)), strict=True)
    ]
    flaws_T1 = there[-1]
    planned = device.plan_attention(forward.query_starts_S1, forward.seq_lens_S, forward.block_tables_SB)
    last = replace(moved[1], flaws_T1=flaws_T1)
    return replace(moved[0], flaws_T1=flaws_T1, last=(there[-2], last), planned=planned)


def _block_tables(works: tuple[Work, ...]) -> np.ndarray:
    width = max(len(work.block_table) for work in works)
    tables_SB = np.zeros((len(works), width), np.int32)
    for row, work in zip(tables_SB, works, strict=True):
        row[: len(work.block_table)] = work.block_table
    return tables_SB
