"""The table behind the doors: one kernel an operation, chosen once when a device is opened.

Knows: the operations there are, the CPU's kernels. Does not know: what a kernel computes, torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from quire.kernels.cpu.native import _cpu

Kernel = Callable[..., Any]


def absent(*arguments: Any) -> Any:
    """In the place of a kernel that a device has not: its formats never ask for it."""
    raise NotImplementedError("this device has no kernel for weights in two planes")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Each takes what its door in `quire.ops` takes, without the device and with a cache's `pages` for the cache."""

    linear: Kernel
    rms_norm: Kernel
    silu_mul: Kernel
    rope_store: Kernel
    attention: Kernel
    embed: Kernel
    gather_rows: Kernel
    sample: Kernel
    token_counts: Kernel
    pack: Kernel
    quantize: Kernel
    unpack: Kernel
    quantize_planes: Kernel = absent
    refine: Kernel = absent


def cpu_kernels(core: Any) -> Kernels:
    """Those of the C++ device `core`; a `partial` in front of a kernel costs some 30 ns a launch."""
    return Kernels(
        linear=partial(_cpu.linear, core),
        rms_norm=partial(_cpu.rms_norm, core),
        silu_mul=partial(_cpu.silu_mul, core),
        rope_store=partial(_cpu.rope_store, core),
        attention=partial(_cpu.attention, core),
        embed=partial(_cpu.embed, core),
        gather_rows=partial(_cpu.gather_rows, core),
        sample=partial(_sample, core),
        token_counts=_token_counts,
        pack=partial(_cpu.pack, core),
        quantize=partial(_cpu.quantize, core),
        unpack=partial(_cpu.unpack, core),
        quantize_planes=partial(_cpu.quantize_planes, core),
        refine=partial(_cpu.refine, core),
    )


def _sample(
    core: Any, logits_RV: Any, rows: Any, drawn: Any, counts_R: Sequence[Any] | None, mask_RW: Any | None
) -> int:
    failed: int = _cpu.sample(
        core,
        logits_RV,
        rows.bytes_R,
        rows.indices_D,
        rows.bias_ids_B,
        rows.bias_values_B,
        counts_R,
        mask_RW,
        drawn.tokens_D,
        drawn.logprobs_D,
        drawn.ranks_D,
        drawn.top_ids_RK,
        drawn.top_logprobs_RK,
        drawn.status_R,
    )
    return failed


def _token_counts(num_prompt: int, vocab_size: int) -> Any:
    return _cpu.TokenCounts(num_prompt)
