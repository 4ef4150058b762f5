"""Correctness of every op: Triton's kernels and plain torch's on the device, against the NumPy reference.

A kernel is wrong where an element is off by more than its number format explains (`ALLOWED`, times the square root of
the inputs for a sum), or, in the batch-invariant mode, where a row's bits depend on its company.

Knows: kernels by their modules, references. Does not know: models, speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import workers
from benchmarks.gpu.context import Context
from benchmarks.gpu.ops_inputs import FLOATS, FORMATS, ROWS, array, held_weight, host, make_weight, on, paged_case
from benchmarks.gpu.rows import told
from quire.kernels.reference import attention as reference_attention
from quire.kernels.reference import linear as reference_linear
from quire.kernels.reference import rope_store as reference_rope
from quire.kernels.reference.kv_cache import ReferenceKVCache
from quire.kernels.reference.rms_norm import rms_norm as reference_norm
from quire.kernels.reference.silu_mul import silu_mul as reference_silu
from quire.kernels.torch.pages import make_pages

ALLOWED = {"float32": 3e-5, "bfloat16": 2e-2, "float16": 4e-3, "int8": 0.04, "fp8": 0.08}
HEADS = ((4, 4, 64), (8, 2, 128), (7, 1, 80), (14, 2, 96), (32, 8, 128), (8, 1, 256))
MIXED = ((1, 1), (5, 5), (1, 40), (33, 50), (2, 17), (1, 700), (130, 260))
SPLIT = ((1, 5000), (3, 1030), (1, 1))
GROUPS = ("rows", "products", "cache and attention", "batch invariance")
STRETCH = 8
Case = tuple[str, Callable[[], bool]]


def kernel(kind: str, op: str) -> Any:
    """The function of that name, of "triton" or "torch"."""
    file = {"gather_rows": "gather"}.get(op, op)
    return getattr(import_module(f"quire.kernels.{kind}.{file}"), op)


def close(got: torch.Tensor, expected: Any, dtype: str, num_sums: int = 1) -> bool:
    """Whether every element is as near as its format allows."""
    step = ALLOWED[dtype]
    return bool(np.allclose(host(got), expected, rtol=step, atol=step * num_sums**0.5))


def rowwise(kind: str, where: torch.device, rows: Sequence[int]) -> Iterator[Case]:
    """rms_norm, silu_mul, embed and gather_rows."""
    for num_rows in rows:
        for dtype in FLOATS:
            yield f"rms_norm {num_rows} {dtype}", lambda n=num_rows, d=dtype: norm_is_right(kind, where, n, d)
            yield f"silu_mul {num_rows} {dtype}", lambda n=num_rows, d=dtype: silu_is_right(kind, where, n, d)
    for dtype, group, symmetric in FORMATS:
        how = (dtype, group, symmetric)
        yield f"embed {dtype} {group}", lambda how=how: embed_is_right(kind, where, how)
    for dtype in FLOATS:
        yield f"gather_rows {dtype}", lambda d=dtype: gather_is_right(kind, where, d)


def norm_is_right(kind: str, where: torch.device, num_rows: int, dtype: str) -> bool:
    """x and out in `dtype`, one row of a width that is no power of two, one of Llama's."""
    right = True
    for width in (70, 4096):
        x, weight = on(where, array(1, num_rows, width), dtype), array(2, width)
        out = torch.empty_like(x)
        kernel(kind, "rms_norm")(x, on(where, weight), 1e-5, out)
        right &= close(out, reference_norm(host(x), weight, 1e-5), dtype)
    return right


def silu_is_right(kind: str, where: torch.device, num_rows: int, dtype: str) -> bool:
    """Gates of both signs, one far down."""
    wide = 20 * array(1, num_rows, 2 * 35)
    wide[0, 0] = -200.0
    x = on(where, wide, dtype)
    out = torch.empty((num_rows, 35), dtype=x.dtype, device=where)
    kernel(kind, "silu_mul")(x, out)
    return close(out, reference_silu(host(x)), dtype, 16)


def embed_is_right(kind: str, where: torch.device, how: tuple[str, int, bool]) -> bool:
    """Ids in any order, one twice."""
    weight, ids = make_weight(where, 50, 256, *how), np.array([3, 49, 0, 3], np.int32)
    out = torch.empty((4, 256), device=where)
    kernel(kind, "embed")(on(where, ids), weight, out)
    return close(out, host(weight.rows())[ids], "float32")


def gather_is_right(kind: str, where: torch.device, dtype: str) -> bool:
    """Bits, not numbers."""
    x, rows = on(where, array(1, 9, 70), dtype), np.array([8, 0, 8, 3], np.int32)
    out = torch.empty((4, 70), dtype=x.dtype, device=where)
    kernel(kind, "gather_rows")(x, on(where, rows), out)
    return bool(torch.equal(out, x[on(where, rows.astype(np.int64))]))


def products(kind: str, where: torch.device, rows: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Iterator[Case]:
    """Every format of weights, with and without what a product takes along."""
    for n, k in sizes:
        for dtype, group, symmetric in FORMATS:
            how = (n, k, dtype, group, symmetric)
            for x_dtype in FLOATS if dtype not in FLOATS else (dtype,):
                for num_rows in rows:
                    for inside in ("", "norm", "silu") if n < 1000 else ("",):
                        yield (
                            f"linear {num_rows} x {n} x {k} {dtype} {group} {x_dtype} {inside}",
                            lambda h=how, m=num_rows, d=x_dtype, i=inside: product_is_right(kind, where, h, m, d, i),
                        )


def product_is_right(kind: str, where: torch.device, how: Any, num_rows: int, dtype: str, inside: str) -> bool:
    """With bias and old output where something is done to the rows on their way in, else neither."""
    weight = held_weight(where, *how)
    k = weight.k
    x = on(where, array(num_rows, num_rows, 2 * k if inside == "silu" else k), dtype)
    norm, rows = None, host(x)
    if inside == "norm":
        norm = array(5, k)
        rows = reference_norm(rows, norm, 1e-5)
    elif inside == "silu":
        rows = reference_silu(rows)
    bias = array(6, weight.n) if inside else None
    old = on(where, array(7, num_rows, weight.n), dtype)
    out = old.clone() if inside else torch.full_like(old, torch.nan)
    expected = reference_linear.linear(rows, host(weight.rows()), "float32", bias, host(old) if inside else None)
    extra = (None if bias is None else on(where, bias), bool(inside), None if norm is None else on(where, norm))
    kernel(kind, "linear")(x, weight, out, *extra, 1e-5, inside == "silu")
    return close(out, expected, dtype, k)


def cached(kind: str, where: torch.device, heads: Sequence[tuple[int, int, int]]) -> Iterator[Case]:
    """rope_store into pages of every format, attention over them."""
    for each in heads:
        for page_dtype in ("float32", "bfloat16", "float16", "int8", "fp8"):
            for norm in (False, True):
                yield (
                    f"rope_store {each} {page_dtype} {norm}",
                    lambda h=each, p=page_dtype, n=norm: rope_is_right(kind, where, h, p, n),
                )
        for dtype, page_dtype in (
            ("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16"), ("bfloat16", "int8"),
            ("bfloat16", "fp8"), ("float16", "int8"),
        ):  # fmt: skip
            for seqs in (MIXED, SPLIT) if each[2] == 128 else (MIXED,):
                yield (
                    f"attention {each} {dtype} {page_dtype} {max(keys for _, keys in seqs)} keys",
                    lambda h=each, d=dtype, p=page_dtype, s=seqs: attention_is_right(kind, where, h, d, p, s),
                )


def rope_is_right(kind: str, where: torch.device, heads: tuple[int, int, int], page_dtype: str, norm: bool) -> bool:
    """17 tokens at random positions and slots: queries that come out, keys and values that are kept, flaws marked."""
    num_heads, num_kv_heads, head_dim = heads
    rng, num_tokens = np.random.default_rng(head_dim), 17
    qkv = array(1, num_tokens, (num_heads + 2 * num_kv_heads) * head_dim)
    angles = rng.uniform(-3, 3, (50, head_dim // 2))
    positions, slots = rng.integers(0, 50, num_tokens).astype(np.int32), rng.permutation(64)[:17].astype(np.int32)
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    norms = [array(8 + n, head_dim) if norm else None for n in range(2)]
    pages = make_pages(where, 2, 4, 16, num_kv_heads, head_dim, page_dtype)
    expected = ReferenceKVCache(2, 4, 16, num_kv_heads, head_dim, "float32")
    q_expected = np.empty((num_tokens, num_heads, head_dim), np.float32)
    reference_rope.rope_store(qkv, positions, slots, *tables, expected, 1, *norms, 1e-6, q_expected)
    q, flaws = torch.empty(q_expected.shape, device=where), torch.zeros(num_tokens + 1, dtype=torch.int32, device=where)
    there = [None if each is None else on(where, each) for each in (qkv, positions, slots, *tables)]
    weights = [None if each is None else on(where, each) for each in norms]
    kernel(kind, "rope_store")(*there, pages, 1, *weights, 1e-6, q, flaws)
    held = pages.rows(1, on(where, np.arange(4)), 64)
    right = close(q, q_expected, "float32") and not bool(flaws.any())
    for got, wanted in zip(held, (expected.k_LBPGD[1], expected.v_LBPGD[1]), strict=True):
        flat = wanted.reshape(64, num_kv_heads, head_dim)[slots]
        largest = np.abs(flat).max(axis=-1, keepdims=True)
        off = np.abs(host(got)[slots] - flat) - ALLOWED[page_dtype] * np.maximum(np.abs(flat), largest / 8)
        right &= bool((off <= 1e-6).all())
    return right


def attention_is_right(
    kind: str, where: torch.device, heads: tuple[int, int, int], dtype: str, page_dtype: str, seqs: Any
) -> bool:
    """Prompts, chunks and single tokens in one launch."""
    case = paged_case(where, seqs, heads, dtype, page_dtype)
    arguments = case.arguments()
    kernel(kind, "attention")(*arguments)
    q = host(case.q_TQD)
    expected = np.empty((len(q), q.shape[1] * q.shape[2]), np.float32)
    ints = case.starts_S1.astype(np.int32), case.lens_S, case.tables_SB
    reference_attention.attention(q, case.reference, 1, *ints, case.scale, expected)
    return close(arguments[-1], expected, dtype)


def invariant(kind: str, where: torch.device) -> Iterator[Case]:
    """Bits of a row alone, and of the same row in company."""
    module = kind if kind == "triton" else "torch.invariant"
    for dtype, group in (("bfloat16", 0), ("int8", 0), ("int4", 64), ("fp8", 0)):
        weight = make_weight(where, 72, 512, dtype, group)
        yield f"linear {dtype} alone", lambda w=weight: product_is_invariant(module, w)
    for page_dtype in ("bfloat16", "int8", "fp8"):
        yield f"attention {page_dtype} alone", lambda p=page_dtype: attention_is_invariant(module, where, p)


def _invariant_kernel(module: str, op: str) -> Callable[..., None]:
    if module == "triton":
        plain = kernel("triton", op)
        return lambda *arguments: plain(*arguments, invariant=True)
    found: Callable[..., None] = getattr(import_module("quire.kernels.torch.invariant"), op)
    return found


def product_is_invariant(module: str, weight: Any) -> bool:
    """Rows 0, 69 and 3 to 19 of 70."""
    where, run = weight.data.device, _invariant_kernel(module, "linear")
    x = on(where, array(1, 70, weight.k), "bfloat16")
    together = torch.empty((70, weight.n), dtype=x.dtype, device=where)
    run(x, weight, together)
    right = True
    for first, last in ((0, 1), (69, 70), (3, 20)):
        out = torch.empty((last - first, weight.n), dtype=x.dtype, device=where)
        run(x[first:last].contiguous(), weight, out)
        right &= bool(torch.equal(out, together[first:last]))
    return right


def attention_is_invariant(module: str, where: torch.device, page_dtype: str) -> bool:
    """Each sequence of a mixed step alone."""
    run, case = _invariant_kernel(module, "attention"), paged_case(where, MIXED, (8, 2, 128), "bfloat16", page_dtype)
    together = case.arguments()
    run(*together)
    right = True
    for seq in range(len(MIXED)):
        alone = case.arguments([seq])
        run(*alone)
        rows = slice(int(case.starts_S1[seq]), int(case.starts_S1[seq + 1]))
        right &= bool(torch.equal(alone[-1], together[-1][rows]))
    return right


def kinds(context: Context) -> tuple[str, ...]:
    """What is compared: under plain torch on a CPU there is no Triton."""
    return ("torch",) if context.device == "torch:cpu" else ("triton", "torch")


def cases_of(group: str, kind: str, context: Context) -> Iterator[Case]:
    """All comparisons of a group with one kind of kernel."""
    where = context.torch
    rows, heads = ((1, 17), HEADS[1:2]) if context.tiny else (ROWS, HEADS)
    sizes = ((35, 130),) if context.tiny else ((35, 202), (96, 1024), (4096, 4096))
    if group == "rows":
        return rowwise(kind, where, rows)
    if group == "products":
        return products(kind, where, rows, sizes)
    if group == "cache and attention":
        return cached(kind, where, heads)
    return invariant(kind, where)


def some(context: Context, group: str, kind: str, place: int, num_places: int) -> None:
    """Every `num_places`-th stretch of a group: neighbours share kernels, so they are compiled once."""
    cases = (case for n, case in enumerate(cases_of(group, kind, context)) if n // STRETCH % num_places == place)
    report(context, f"{group}, {kind}", cases)


def run(context: Context) -> None:
    """The part: a row for each group and kind of kernel, the first wrong cases named."""
    for kind in kinds(context):
        for group in GROUPS:
            num = workers.number(context) if kind == "triton" else 1
            tasks = [(group, kind, place, num) for place in range(num)]
            workers.together(context.rows, f"{group}, {kind}", workers.spread(context, some, tasks))


def report(context: Context, name: str, cases: Iterator[Case]) -> None:
    """Run all of them; one that raises is wrong, and says so."""
    wrong, count = [], 0
    for what, is_right in cases:
        count += 1
        try:
            right, why = is_right(), ""
        except Exception as problem:  # noqa: BLE001 - a kernel that does not compile must not hide the others
            right, why = False, f" ({told(problem)})"
        if not right:
            wrong.append(f"{what.strip()}{why}")
    context.rows.check(name, len(wrong), count, "; ".join(wrong[:3]))
