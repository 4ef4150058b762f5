"""Paged attention by FlashInfer: our pages as they are, plans made of what the host knows.

    pages     data[layer] is [2, block, token, head, head_dim]: its two halves are the pair of caches that FlashInfer's
              NHD layout asks for, so nothing is copied
    plan      once a step, on the host, before the step's launches; all layers run it. Lengths are given as pinned
              tensors of the host (on the device it would fetch them and wait), pages as a tensor of the device (from
              the host it would wait for that copy where a step is recorded)
    recorded  a size of recorded steps has a wrapper of its own, made for CUDA graphs: what its kernels read lies where
              it was when they were recorded, and a plan before each replay writes it again

All wrappers run one after the other on one stream, so they share what a plan has written and nobody needs any more:
the memory for partial sums and, for recorded steps, the plan's own arrays. What a plan copies from pinned memory is
waited for before the next plan of the same wrapper.

Knows: flashinfer's paged wrappers. Does not know: which steps they are good for.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, B blocks a table row, N pages of all sequences.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from quire.attention_shape import AttentionShape
from quire.kernels.torch.lanes import Lanes, Mark, Reached, Uploads
from quire.kernels.vendor import fits
from quire.kernels.vendor.paging import paged

if TYPE_CHECKING:
    from quire.kernels.torch.pages import Pages

LAYOUT = "NHD"
RECORDED_BYTES = 2**20  # the arrays of a plan of single tokens: at most 20 bytes a tile of some thousand
PROCESSORS_OF_A_CPU = 3
# What a library that is not ours may raise where it does not fit; on its way to the device nothing is caught.
FAILURES = (
    ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError,
)  # fmt: skip
Plan = Callable[[Tensor, Tensor, Tensor, Tensor], None]


class Planned:
    """Attention of one step after the other: `fill` before a step, then `attend` once a layer."""

    __slots__ = ("_host", "_lanes", "_mark", "_plan", "_shape", "_uploads", "_wrapper")

    def __init__(self, wrapper: Any, plan: Plan, shape: AttentionShape, lanes: Lanes, uploads: Uploads) -> None:
        self._wrapper, self._plan, self._shape = wrapper, plan, shape
        self._lanes, self._uploads = lanes, uploads
        self._host = lanes.host_buffer(0).view(torch.int32)
        self._mark: Mark = Reached()

    def fill(self, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> None:
        """Plan the next step; int32 arrays of the host, as `ops/attention.py` has them on the device. Nothing waits but
        for this wrapper's last plan to have been copied. Raises one of `FAILURES`."""
        ends_S1, pages_N, last_S = paged(seq_lens_S, block_tables_SB, self._shape.block_size)
        (there,) = self._uploads.upload([pages_N])
        self._mark.wait()
        starts, ends, last = self._pinned(np.asarray(query_starts_S1), ends_S1, last_S)
        try:
            self._plan(starts, ends, there, last)
        finally:
            self._mark = self._lanes.mark()

    def attend(self, q_TQD: Tensor, pages: Pages, layer: int, scale: float, out_T_QD: Tensor) -> None:
        """The contract of `ops/attention.py` for the step that was planned. ValueError for another scale than the
        shape's: a plan has it in it."""
        if scale != self._shape.scale:
            raise ValueError(f"attention was planned with scale {self._shape.scale}, not {scale}")
        data = pages.data[layer]
        self._wrapper.run(q_TQD, (data[0], data[1]), out=out_T_QD.view(q_TQD.shape))

    def _pinned(self, *arrays: np.ndarray[Any, Any]) -> list[Tensor]:
        """The arrays in this wrapper's own pinned memory."""
        needed = sum(map(len, arrays))
        if len(self._host) < needed:
            self._host = self._lanes.host_buffer(2 * 4 * needed).view(torch.int32)
        found, first = list[Tensor](), 0
        for array in arrays:
            there = self._host[first : first + len(array)]
            there.numpy()[:] = array
            found.append(there)
            first += len(array)
        return found


class FlashInfer:
    """The library on one device for one shape; memory is taken when it is made."""

    def __init__(self, library: Any, lanes: Lanes, uploads: Uploads, shape: AttentionShape, dtype: torch.dtype) -> None:
        """Raises one of `FAILURES`."""
        device = lanes.device
        self.name = f"flashinfer {library.__version__}"
        self._library, self._lanes, self._uploads = library, lanes, uploads
        self._shape, self._dtype = shape, dtype
        self._sums = torch.zeros(
            fits.workspace_bytes(shape, num_processors(device)), dtype=torch.uint8, device=device
        )  # it wants zeros at first
        self._recorded = torch.zeros(RECORDED_BYTES, dtype=torch.uint8, device=device)
        most_blocks = -(-shape.most_keys // shape.block_size)
        self._ends, self._last, self._pages = (
            torch.zeros(size, dtype=torch.int32, device=device)
            for size in (shape.most_seqs + 1, shape.most_seqs, shape.most_seqs * most_blocks)
        )
        tokens = library.BatchDecodeWithPagedKVCacheWrapper(
            self._sums, LAYOUT, use_tensor_cores=fits.takes_tensor_cores(shape)
        )
        prompts = library.BatchPrefillWithPagedKVCacheWrapper(
            self._sums, LAYOUT, backend=fits.prompt_kernel(capability(device))
        )
        self._tokens = self._planned(tokens, self._plan_tokens(tokens))
        self._prompts = self._planned(prompts, self._plan_prompts(prompts))

    def step(self, kind: str) -> Planned:
        """For steps of a kind that are not recorded: good until it is asked for again."""
        return self._tokens if kind == "tokens" else self._prompts

    def recorded(self, num_seqs: int) -> Planned:
        """For recorded steps of so many single tokens. Raises one of `FAILURES`."""
        if num_seqs > self._shape.most_seqs:
            raise ValueError(f"there is room for {self._shape.most_seqs} sequences a step, not for {num_seqs}")
        wrapper = self._library.BatchDecodeWithPagedKVCacheWrapper(
            self._sums,
            LAYOUT,
            use_cuda_graph=True,
            use_tensor_cores=fits.takes_tensor_cores(self._shape),
            paged_kv_indptr_buffer=self._ends[: num_seqs + 1],
            paged_kv_indices_buffer=self._pages,
            paged_kv_last_page_len_buffer=self._last[:num_seqs],
        )
        wrapper.reset_workspace_buffer(self._sums, self._recorded)
        return self._planned(wrapper, self._plan_tokens(wrapper))

    def _planned(self, wrapper: Any, plan: Plan) -> Planned:
        return Planned(wrapper, plan, self._shape, self._lanes, self._uploads)

    def _plan_tokens(self, wrapper: Any) -> Plan:
        def plan(starts: Tensor, ends: Tensor, pages: Tensor, last: Tensor) -> None:
            wrapper.plan(ends, pages, last, *self._heads(), **self._numbers())

        return plan

    def _plan_prompts(self, wrapper: Any) -> Plan:
        def plan(starts: Tensor, ends: Tensor, pages: Tensor, last: Tensor) -> None:
            wrapper.plan(starts, ends, pages, last, *self._heads(), causal=True, **self._numbers())

        return plan

    def _heads(self) -> tuple[int, ...]:
        shape = self._shape
        return shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.block_size

    def _numbers(self) -> dict[str, Any]:
        return {
            "pos_encoding_mode": "NONE", "q_data_type": self._dtype, "kv_data_type": self._dtype,
            "sm_scale": self._shape.scale, "non_blocking": True,
        }  # fmt: skip


def open_flashinfer(
    lanes: Lanes, shape: AttentionShape, dtype: torch.dtype, compiles: bool
) -> tuple[FlashInfer | None, str]:
    """(the library, its name), or (None, why not). Unless it `compiles`, it is taken only with its kernels ready."""
    try:
        library = importlib.import_module("flashinfer")
        able = capability(lanes.device)
        problem = fits.obstacle(shape, dtype, library.__version__, able)
        if not problem and not compiles:
            missing = fits.not_compiled(shape, dtype, able)
            problem = f"its kernels are not compiled yet ({', '.join(missing)})" if missing else ""
        if problem:
            return None, problem
        found = FlashInfer(library, lanes, Uploads(lanes), shape, dtype)  # nobody else's uploads wait for its own
    except FAILURES as failed:
        return None, told(failed)
    return found, found.name


def capability(device: torch.device) -> tuple[int, int] | None:
    """The GPU's; None of a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors."""
    if device.type != "cuda":
        return PROCESSORS_OF_A_CPU
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def told(problem: Exception) -> str:
    """An exception of the library's in a line."""
    said = str(problem).strip().splitlines()
    return f"{type(problem).__name__}{': ' + said[0] if said else ''}"
