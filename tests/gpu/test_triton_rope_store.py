"""Norm, rotation and the store of keys and values, under the interpreter, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from quire.kernels.reference.kv_cache import ReferenceKVCache  # noqa: E402
from quire.kernels.reference.rope_store import rope_store as reference_rope_store  # noqa: E402
from quire.kernels.torch.pages import PAGE_DTYPES, Pages  # noqa: E402
from quire.kernels.torch.rope_store import rope_store as torch_rope_store  # noqa: E402
from quire.kernels.triton.rope_store import rope_store  # noqa: E402

pytestmark = pytest.mark.triton
BLOCKS, BLOCK_SIZE = 4, 16


def make_pages(dtype: str, num_kv_heads: int, head_dim: int, num_layers: int = 2) -> Pages:
    shape = (num_layers, 2, BLOCKS, BLOCK_SIZE, num_kv_heads, head_dim)
    scales = torch.zeros(shape[:-1]) if dtype in ("int8", "fp8") else None
    return Pages(torch.zeros(shape).to(PAGE_DTYPES[dtype]), scales)


def make_inputs(num_tokens: int, num_heads: int, num_kv_heads: int, head_dim: int, dtype: str) -> list[torch.Tensor]:
    rng = np.random.default_rng(num_tokens + head_dim)
    qkv = rng.standard_normal((num_tokens, (num_heads + 2 * num_kv_heads) * head_dim)).astype(np.float32)
    angles = np.arange(50)[:, None] * 10000.0 ** -np.linspace(0, 1, head_dim // 2)
    return [
        torch.from_numpy(qkv).to(getattr(torch, dtype)),
        torch.from_numpy(rng.integers(0, 50, num_tokens).astype(np.int32)),
        torch.from_numpy(rng.permutation(BLOCKS * BLOCK_SIZE)[:num_tokens].astype(np.int32)),
        torch.from_numpy(np.cos(angles).astype(np.float32)),
        torch.from_numpy(np.sin(angles).astype(np.float32)),
    ]


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(4, 4, 64), (14, 2, 80), (9, 1, 6), (2, 1, 256)])
@pytest.mark.parametrize("normed", [False, True])
def test_float32_pages_hold_what_the_reference_stores(
    num_heads: int, num_kv_heads: int, head_dim: int, normed: bool
) -> None:
    rng = np.random.default_rng(1)
    norms = [rng.standard_normal(head_dim).astype(np.float32) if normed else None for _ in range(2)]
    for num_tokens in (0, 1, 3, 17):
        inputs = make_inputs(num_tokens, num_heads, num_kv_heads, head_dim, "float32")
        pages = make_pages("float32", num_kv_heads, head_dim)
        expected = ReferenceKVCache(2, BLOCKS, BLOCK_SIZE, num_kv_heads, head_dim, "float32")
        q, q_expected = torch.empty(num_tokens, num_heads, head_dim), np.empty((num_tokens, num_heads, head_dim))
        rope_store(*inputs, pages, 1, *[None if w is None else torch.from_numpy(w) for w in norms], 1e-6, q)
        if num_tokens:
            reference_rope_store(*[x.numpy() for x in inputs], expected, 1, *norms, 1e-6, q_expected)
        np.testing.assert_allclose(q.numpy(), q_expected, rtol=1e-5, atol=1e-5)
        for held, wanted in ((pages.data[1, 0], expected.k_LBPGD[1]), (pages.data[1, 1], expected.v_LBPGD[1])):
            np.testing.assert_allclose(held.numpy(), np.nan_to_num(wanted), rtol=1e-5, atol=1e-5)
        assert not pages.data[0].any()


@pytest.mark.parametrize("page_dtype", ["bfloat16", "float16", "int8", "fp8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrow_pages_hold_what_torch_stores(page_dtype: str, dtype: str) -> None:
    inputs = make_inputs(9, 6, 2, 64, dtype)
    inputs[0][2, 7] = torch.inf if page_dtype in ("int8", "fp8") else 1.0  # a query: no head of keys is spoilt
    inputs[0][4, 6 * 64 : 7 * 64] = 0.0  # a head of zeros has a scale too
    norm = torch.linspace(0.5, 2, 64)
    ours, theirs = make_pages(page_dtype, 2, 64), make_pages(page_dtype, 2, 64)
    q_ours, q_theirs = torch.empty((2, 9, 6, 64), dtype=inputs[0].dtype)
    rope_store(*inputs, ours, 0, norm, None, 1e-6, q_ours)
    torch_rope_store(*inputs, theirs, 0, norm, None, 1e-6, q_theirs)
    step = {"int8": 1.001, "fp8": 32.001, "bfloat16": 0.02, "float16": 0.002}[page_dtype]  # one unit in the last place
    difference = (ours.data.float() - theirs.data.float()).abs()
    assert difference.max() <= step
    assert (difference > 0).float().mean() < 0.01
    if ours.scales is not None:
        np.testing.assert_allclose(ours.scales.numpy(), theirs.scales.numpy(), rtol=1e-6)
    finite = torch.isfinite(q_theirs.float())
    np.testing.assert_allclose(q_ours[finite].float().numpy(), q_theirs[finite].float().numpy(), rtol=0.01, atol=0.02)


def test_a_head_that_is_not_finite_is_told_by_its_scale() -> None:
    inputs = make_inputs(3, 2, 2, 16, "float32")
    inputs[0][1, 2 * 16 + 5] = torch.nan
    pages, q = make_pages("int8", 2, 16), torch.empty(3, 2, 16)
    rope_store(*inputs, pages, 0, None, None, 1e-6, q)
    slots = inputs[2].long()
    told = pages.scales[0, 0].flatten(0, 1)[slots].isnan()
    assert told.tolist() == [[False, False], [True, False], [False, False]]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_flawed_rows_are_marked_and_no_others(dtype: str) -> None:
    inputs = make_inputs(5, 6, 2, 16, "float32")
    for flaw, expected in (
        (None, [0] * 6),
        (0, [0] * 6),
        (6 * 16, [1, 0, 0, 1, 0, 0]),
        (9 * 16 + 3, [1, 0, 0, 1, 0, 0]),
    ):
        if flaw is not None:
            inputs[0][2, flaw] = torch.inf
        flaws = torch.zeros(6, dtype=torch.int32)
        rope_store(*inputs, make_pages(dtype, 2, 16), 0, None, None, 1e-6, torch.empty(5, 6, 16), flaws)
        assert flaws.tolist() == expected, flaw
        inputs[0][2] = 1.0
