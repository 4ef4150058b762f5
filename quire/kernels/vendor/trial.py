"""Our own attention and another one on the same step, to be compared and timed by whoever asks.

Knows: random pages, both ways of computing. Does not know: clocks, which way wins.

Legend: S sequences, T tokens, Q query heads, G kv heads, D head_dim, B blocks a table row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from quire.attention_shape import AttentionShape, typical
from quire.kernels.torch.lanes import Lanes, Uploads
from quire.kernels.torch.pages import Pages
from quire.kernels.torch.recording import Recorder
from quire.kernels.vendor.flashinfer import FlashInfer

MOST_LAYERS = 32
SPREAD = 0x9E3779B1  # a prime near 2^32 over the golden ratio: neighbours lie far from each other


class Trial:
    """`ours` and `theirs` compute the attention of all layers (at most 32) of one typical step of a kind, theirs with
    its plan; with a `recorder` and single tokens both are replays of recordings, and the plan, which then is made while
    the device computes the step before, is left out. Raises what the library raises.
    """

    def __init__(
        self,
        other: FlashInfer,
        own: Callable[..., None],
        shape: AttentionShape,
        kind: str,
        dtype: torch.dtype,
        lanes: Lanes,
        uploads: Uploads,
        recorder: Recorder | None,
    ) -> None:
        host, q_TQD, pages = typical_step(shape, kind, dtype, lanes.device)
        there = uploads.upload(host)
        recorder = recorder if kind == "tokens" else None
        planned = other.recorded(len(host[1])) if recorder is not None else other.step(kind)
        layers, scale = min(shape.num_layers, MOST_LAYERS), shape.scale
        out, other_out = self._outs = [torch.zeros_like(q_TQD).flatten(1) for _ in range(2)]
        planned.fill(*host)

        def ours() -> None:
            for _ in range(layers):
                own(q_TQD, pages, 0, *there, scale, out)

        def attend() -> None:
            for _ in range(layers):
                planned.attend(q_TQD, pages, 0, scale, other_out)

        def theirs() -> None:
            planned.fill(*host)
            attend()

        self.ours, self.theirs = ours, theirs  # neither knows this object: its memory is free as soon as it goes
        if recorder is not None:
            ours()  # what is recorded has been compiled
            attend()
            self.ours, self.theirs = recorder.record(ours).replay, recorder.record(attend).replay

    def difference(self) -> float:
        """The largest difference of what both have computed, of the largest number; waits for the device."""
        ours, theirs = (out.float() for out in self._outs)
        return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-6))


def typical_step(
    shape: AttentionShape, kind: str, dtype: torch.dtype, device: torch.device
) -> tuple[list[np.ndarray[Any, Any]], torch.Tensor, Pages]:
    """([starts_S1, lens_S, tables_SB], q_TQD, pages of one layer in shuffled blocks)."""
    sizes = typical(shape, kind)
    lens_S = np.array([keys for _, keys in sizes], np.int32)
    counts_S = -(-lens_S // shape.block_size)
    order = np.argsort(np.arange(int(counts_S.sum()), dtype=np.uint32) * np.uint32(SPREAD)).astype(np.int32)
    tables_SB = np.zeros((len(sizes), int(counts_S.max())), np.int32)
    tables_SB[np.arange(tables_SB.shape[1]) < counts_S[:, None]] = order
    starts_S1 = np.cumsum([0, *(queries for queries, _ in sizes)]).astype(np.int32)
    numbers = torch.Generator(device).manual_seed(0)
    made: dict[str, Any] = {"generator": numbers, "dtype": dtype, "device": device}
    q_TQD = torch.randn(int(starts_S1[-1]), shape.num_heads, shape.head_dim, **made)
    held = (1, 2, len(order), shape.block_size, shape.num_kv_heads, shape.head_dim)
    return [starts_S1, lens_S, tables_SB], q_TQD, Pages(torch.randn(held, **made))
