"""A model on a device with a cache: steps built by hand, blocks dealt in a shuffled order, the arena poisoned.

Knows: `Forward`. Does not know: the scheduler or the runner, whose work it does in the plainest way.

Legend: T tokens, S sequences, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quire.layers.forward import Forward
from quire.model_spec import read_model_spec
from quire.models import load
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.precision import Precision
from quire.weights.checkpoint import Checkpoint

BLOCK_SIZE = 16


class Stage:
    """Sequences by number; `run` computes further tokens of some of them."""

    def __init__(
        self,
        folder: Path,
        dtype: str = "float32",
        threads: int = 1,
        isa: str = "auto",
        precision: Precision | None = None,
        **options: Any,
    ) -> None:
        """`dtype` is that of keys and values, and of the weights without `precision`."""
        self.spec = read_model_spec(folder)
        self.device = Device(threads, isa)
        self.model = load(self.spec, Checkpoint.open(folder), self.device, precision or Precision(dtype), **options)
        self.arena = Arena(poison=True)
        num_blocks = 8 * -(-self.spec.context_length // BLOCK_SIZE)
        spec = self.spec
        self.kv = KVCache(spec.num_layers, num_blocks, BLOCK_SIZE, spec.num_kv_heads, spec.head_dim, dtype)
        self.free = list(range(num_blocks))
        random.Random(7).shuffle(self.free)
        self.tables: dict[int, list[int]] = {}
        self.lengths: dict[int, int] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()

    def forward(self, works: Sequence[tuple[int, Sequence[int]]], rows: Sequence[int] | None = None) -> Forward:
        """The step that appends tokens to sequences, in the order given."""
        ids, positions, slots, starts, lengths = [], [], [], [0], []
        for seq, tokens in works:
            begin = self.lengths.get(seq, 0)
            end = self.lengths[seq] = begin + len(tokens)
            table = self.tables.setdefault(seq, [])
            while len(table) * BLOCK_SIZE < end:
                table.append(self.free.pop())
            ids += list(tokens)
            positions += list(range(begin, end))
            slots += [table[place // BLOCK_SIZE] * BLOCK_SIZE + place % BLOCK_SIZE for place in range(begin, end)]
            starts.append(len(ids))
            lengths.append(end)
        tables_SB = np.full((len(works), max(len(self.tables[seq]) for seq, _ in works)), -1, np.int32)
        for row, (seq, _) in zip(tables_SB, works, strict=True):
            row[: len(self.tables[seq])] = self.tables[seq]
        arrays = [np.array(values, np.int32) for values in (ids, positions, slots, starts, lengths)]
        wanted = None if rows is None else np.array(rows, np.int32)
        return Forward(self.device, self.arena, *arrays, tables_SB, self.kv, wanted)

    def run(self, works: Sequence[tuple[int, Sequence[int]]], rows: Sequence[int] | None = None) -> np.ndarray:
        """Logits (a copy) of every row of the step, or of `rows`."""
        return self.model.forward(self.forward(works, rows)).copy()

    def greedy(self, seq: int, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """Prompt first, then one token a step, end of text ignored."""
        tokens: list[int] = []
        step = list(prompt)
        for _ in range(num_tokens):
            tokens.append(int(self.run([(seq, step)], rows=[len(step) - 1])[0].argmax()))
            step = tokens[-1:]
        return tokens
