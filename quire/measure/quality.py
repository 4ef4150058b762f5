"""What number formats cost: every variant of a model against its bfloat16 self, over the same windows of text.

Knows: how a model is loaded and read row by row. Does not know: where the text comes from, how figures are shown.

Legend: T ids of a window, R rows scored at a time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quire import models
from quire.layers.forward import Forward
from quire.measure.agreement import Agreement, log_softmax
from quire.measure.variants import BASE, Variant
from quire.measure.windows import Window
from quire.model_spec import read_model_spec
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.plan import HEAD_ROWS
from quire.weights.checkpoint import Checkpoint

BLOCK = 16


class Reader:
    """One variant of a model, with a cache for one window."""

    def __init__(self, folder: Path, device: Device, variant: Variant, window: int) -> None:
        spec = read_model_spec(folder)
        self.device, self.arena = device, Arena()
        self.model = models.load(
            spec, Checkpoint.open(folder), device, variant.layers, variant.head, max_positions=window
        )
        num_blocks = -(-window // BLOCK)
        self.kv = KVCache(spec.num_layers, num_blocks, BLOCK, spec.num_kv_heads, spec.head_dim, variant.kv_dtype)
        self.num_parameters = spec.num_parameters

    def log_probabilities(self, window: Window) -> Iterator[np.ndarray]:
        """Natural log probabilities [R, V] of what follows ids `first - 1`, `first`, ... of the window, R at a time."""
        forward = self._forward(window)
        hidden_TH = self.model.hidden(forward)
        for start in range(window.first - 1, len(window.ids) - 1, HEAD_ROWS):
            rows_R = np.arange(start, min(start + HEAD_ROWS, len(window.ids) - 1), dtype=np.int32)
            yield log_softmax(self.model.logits(forward, hidden_TH, rows_R))

    def _forward(self, window: Window) -> Forward:
        ids_T = np.array(window.ids, np.int32)
        positions_T = np.arange(ids_T.size, dtype=np.int32)
        blocks_1B = np.arange(-(-ids_T.size // BLOCK), dtype=np.int32)[None, :]
        ends_1, starts_2 = np.array([ids_T.size], np.int32), np.array([0, ids_T.size], np.int32)
        return Forward(
            device=self.device,
            arena=self.arena,
            ids_T=ids_T,
            positions_T=positions_T,
            slots_T=positions_T,
            query_starts_S1=starts_2,
            seq_lens_S=ends_1,
            block_tables_SB=blocks_1B,
            kv=self.kv,
        )


def measure_quality(
    folder: Path,
    device: Device,
    variants: Sequence[Variant],
    windows: Sequence[Window],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Figures of each variant against bfloat16 weights and cache, read with the same kernels as serving.

    All variants are held at once, so that every window is read once by each. `tell` gets (windows done, in all).
    """
    longest = max(len(window.ids) for window in windows)
    base = Reader(folder, device, BASE, longest)
    others = [Reader(folder, device, variant, longest) for variant in variants]
    counts = [Agreement() for _ in variants]
    for done, window in enumerate(windows, 1):
        _compare(base, others, counts, window)
        tell(done, len(windows))
    own = Agreement(num_rows=counts[0].num_rows, nll=counts[0].base_nll, base_nll=counts[0].base_nll)
    rows = [
        {"variant": variant.name} | {name: _short(value) for name, value in count.figures().items()}
        for variant, count in zip(variants, counts, strict=True)
    ]
    return {
        "windows": len(windows),
        "window_tokens": longest,
        "scored_tokens": own.num_rows,
        "clear_tokens": counts[0].num_clear,
        "bfloat16_perplexity": _short(own.figures()["perplexity"]),
        "rows": rows,
    }


def _compare(base: Reader, others: Sequence[Reader], counts: Sequence[Agreement], window: Window) -> None:
    targets_T = np.array(window.targets, np.int64)
    expected = list(base.log_probabilities(window))
    for other, count in zip(others, counts, strict=True):
        done = 0
        for base_RV, other_RV in zip(expected, other.log_probabilities(window), strict=True):
            count.add(base_RV, other_RV, targets_T[done : done + len(base_RV)])
            done += len(base_RV)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
