"""A stand-in for FlashInfer: the interface of its paged wrappers (0.4 to 0.6) with what they check and what they need,
computed in plain torch on a CPU. Stricter than the real one where that only shows on a GPU: lengths on the device (it
would wait for them) and a plan that another one has overwritten are errors.

Knows: FlashInfer's interface. Does not know: quire.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__version__ = "0.6.18"
TYPES = [torch.bfloat16, torch.float16, torch.float32]  # the real one has no float32; comparisons are made in it
HEAD_DIMS = (64, 128, 256)
LOG: list[tuple[str, int]] = []  # (wrapper, rows) of every run
PLANS: list[str] = []
BROKEN: dict[str, str] = {}  # "plan" or "run" -> the error to raise
SKEW = {"by": 0.0}  # added to what is computed


class _Wrapper:
    name = ""

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str, use_cuda_graph: bool) -> None:
        if kv_layout not in ("NHD", "HND"):
            raise KeyError(f"Invalid kv_layout {kv_layout}")
        if float_workspace_buffer.data_ptr() % 16 or float_workspace_buffer.dtype != torch.uint8:
            raise ValueError("float_workspace_buffer must be 16-byte aligned bytes")
        self._layout, self._use_cuda_graph = kv_layout, use_cuda_graph
        self.device = float_workspace_buffer.device
        self._int = torch.zeros(8 * 2**20, dtype=torch.uint8)
        self._stamp: int | None = None

    def reset_workspace_buffer(self, float_workspace_buffer: Tensor, int_workspace_buffer: Tensor) -> None:
        for buffer in (float_workspace_buffer, int_workspace_buffer):
            if buffer.data_ptr() % 16:
                raise ValueError("workspace buffers must be 16-byte aligned")
        self._int = int_workspace_buffer

    def _begin(self, heads: tuple[int, ...], q_data_type: Any, kv_data_type: Any) -> None:
        PLANS.append(self.name)
        if "plan" in BROKEN:
            raise RuntimeError(BROKEN["plan"])
        num_heads, num_kv_heads, head_dim, self._page_size = heads
        if num_heads % num_kv_heads:
            raise RuntimeError(f"num_qo_heads {num_heads} should be divisible by num_kv_heads {num_kv_heads}")
        if head_dim not in HEAD_DIMS:
            raise RuntimeError(f"Unsupported head_dim: {head_dim}")
        if q_data_type not in TYPES or kv_data_type != q_data_type:
            raise RuntimeError(f"no kernel for {q_data_type} and {kv_data_type}")
        self._heads, self._type = (num_heads, num_kv_heads, head_dim), q_data_type
        self._stamp = len(PLANS)
        self._int[:8].view(torch.int64)[0] = self._stamp

    def _check_pages(self, indptr: Tensor, indices: Tensor, last_page_len: Tensor) -> None:
        for name, each in (("indptr", indptr), ("last_page_len", last_page_len)):
            if each.device.type != "cpu":
                raise RuntimeError(f"{name} on the device: the plan would wait for it")
        for each in (indptr, indices, last_page_len):
            if each.dtype != torch.int32 or not each.is_contiguous() or each.dim() != 1:
                raise RuntimeError("expected contiguous int32")
        steps = indptr[1:] - indptr[:-1]
        if indptr[0] != 0 or (steps < 1).any() or indptr[-1] != len(indices) or len(indptr) != len(last_page_len) + 1:
            raise RuntimeError(f"indptr {indptr.tolist()} is none of {len(indices)} pages")
        if (last_page_len < 1).any() or (last_page_len > self._page_size).any():
            raise RuntimeError(f"last_page_len {last_page_len.tolist()} out of 1..{self._page_size}")

    def _computed(self, q: Tensor, cache: Any, out: Tensor, starts: list[int], causal: bool) -> Tensor:
        k, v = cache
        num_heads, num_kv_heads, head_dim = self._heads
        if "run" in BROKEN:
            raise RuntimeError(BROKEN["run"])
        if self._stamp is None or int(self._int[:8].view(torch.int64)[0]) != self._stamp:
            raise RuntimeError("run without a plan, or after another plan has overwritten it")
        if q.dtype != self._type or k.dtype != self._type or v.dtype != self._type:
            raise ValueError(f"The dtype of q {q.dtype} or k {k.dtype} does not match that of the plan {self._type}")
        if k.dim() != 4 or k.shape != v.shape or k.stride() != v.stride() or k.stride(-1) != 1:
            raise RuntimeError("k and v must be 4-D, of one shape and one stride")
        if tuple(k.shape[1:]) != (self._page_size, num_kv_heads, head_dim) or self._layout != "NHD":
            raise RuntimeError(f"pages of {tuple(k.shape[1:])}")
        if tuple(q.shape) != (starts[-1], num_heads, head_dim):
            raise ValueError(f"q.shape {tuple(q.shape)} does not match {starts[-1]} rows of the plan")
        if out.shape != q.shape or out.dtype != q.dtype or out.device != q.device:
            raise ValueError(f"Invalid shape of out: expected {tuple(q.shape)}, got {tuple(out.shape)}")
        LOG.append((self.name, len(q)))
        ends, pages, last = self._ends.tolist(), self._pages, self._last.tolist()
        for seq, tokens in enumerate(last):
            mine = pages[ends[seq] : ends[seq + 1]].long()
            num_keys = (len(mine) - 1) * self._page_size + tokens
            keys, values = (x[mine].flatten(0, 1)[:num_keys].float() for x in (k, v))
            rows = slice(starts[seq], starts[seq + 1])
            out[rows] = (attended(q[rows].float(), keys, values, self._scale, causal) + SKEW["by"]).to(out.dtype)
        return out

    _ends: Tensor
    _pages: Tensor
    _last: Tensor
    _scale: float


class BatchDecodeWithPagedKVCacheWrapper(_Wrapper):
    """One query a sequence."""

    name = "decode"

    def __init__(
        self,
        float_workspace_buffer: Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: Tensor | None = None,
        paged_kv_indices_buffer: Tensor | None = None,
        paged_kv_last_page_len_buffer: Tensor | None = None,
        backend: str = "auto",
        jit_args: Any = None,
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        if float_workspace_buffer.any():
            raise ValueError("the workspace must be zeros for its first use")
        self.use_tensor_cores = use_tensor_cores
        buffers = (paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer)
        if use_cuda_graph:
            if not all(map(torch.is_tensor, buffers)):
                raise ValueError("buffers should be torch.Tensors in cudagraph mode")
            self._ends, self._room, self._last = buffers  # type: ignore[assignment]
            if len(self._ends) != len(self._last) + 1:
                raise ValueError("The size of paged_kv_indptr_buffer should be batch_size + 1")

    def plan(
        self,
        indptr: Tensor,
        indices: Tensor,
        last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        pos_encoding_mode: str = "NONE",
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        q_data_type: Any = torch.float16,
        kv_data_type: Any = None,
        data_type: Any = None,
        sm_scale: float | None = None,
        non_blocking: bool = True,
    ) -> None:
        self._begin((num_qo_heads, num_kv_heads, head_dim, page_size), q_data_type, kv_data_type)
        self._check_pages(indptr, indices, last_page_len)
        if not self.use_tensor_cores and num_qo_heads // num_kv_heads not in (1, 2, 4, 8):
            raise RuntimeError(f"Unsupported group_size: {num_qo_heads // num_kv_heads}")
        if self._use_cuda_graph:
            if len(last_page_len) != len(self._last):
                raise ValueError("The batch size should be fixed in cudagraph mode")
            if len(indices) > len(self._room):
                raise ValueError("The size of indices should be less than or equal to the allocated buffer")
            self._ends.copy_(indptr)
            self._last.copy_(last_page_len)
            self._room[: len(indices)].copy_(indices)
            self._pages = self._room
        else:
            self._ends, self._pages, self._last = indptr.clone(), indices, last_page_len.clone()
        self._scale = head_dim**-0.5 if sm_scale is None else sm_scale

    def run(self, q: Tensor, paged_kv_cache: Any, *, out: Tensor) -> Tensor:
        return self._computed(q, paged_kv_cache, out, list(range(len(self._last) + 1)), False)


class BatchPrefillWithPagedKVCacheWrapper(_Wrapper):
    """Any number of queries a sequence, its last positions."""

    name = "prefill"

    def __init__(
        self,
        float_workspace_buffer: Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        if backend not in ("auto", "fa2", "fa3"):
            raise ValueError(f"no backend {backend}")

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        head_dim_vo: int | None = None,
        custom_mask: Any = None,
        packed_custom_mask: Any = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        sm_scale: float | None = None,
        q_data_type: Any = torch.float16,
        kv_data_type: Any = None,
        non_blocking: bool = True,
    ) -> None:
        self._begin((num_qo_heads, num_kv_heads, head_dim_qk, page_size), q_data_type, kv_data_type)
        self._check_pages(paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)
        if len(qo_indptr) != len(paged_kv_indptr) or qo_indptr[0] != 0 or qo_indptr.device.type != "cpu":
            raise RuntimeError(f"qo_indptr {qo_indptr.tolist()}")
        self._starts, self._causal = qo_indptr.tolist(), causal
        self._ends, self._pages = paged_kv_indptr.clone(), paged_kv_indices
        self._last = paged_kv_last_page_len.clone()
        self._scale = head_dim_qk**-0.5 if sm_scale is None else sm_scale

    def run(self, q: Tensor, paged_kv_cache: Any, *, out: Tensor) -> Tensor:
        return self._computed(q, paged_kv_cache, out, self._starts, self._causal)


def attended(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    """[queries, heads, dim]; causal queries are the last positions."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("mhd,jhd->hmj", q, k) * scale
    if causal:
        later = torch.arange(len(k)) > torch.arange(len(k) - len(q), len(k))[:, None]
        scores = scores.masked_fill(later, float("-inf"))
    return torch.einsum("hmj,jhd->mhd", scores.softmax(-1), v)
