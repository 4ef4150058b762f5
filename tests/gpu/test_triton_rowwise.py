"""Kernels that move or change rows, under the interpreter, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from quire.kernels.reference import gather, rms_norm, silu_mul  # noqa: E402
from quire.kernels.torch import weight as weights  # noqa: E402
from quire.kernels.torch.embed import embed as torch_embed  # noqa: E402
from quire.kernels.torch.pack import joined, quantized  # noqa: E402
from quire.kernels.torch.pages import PAGE_DTYPES, Pages  # noqa: E402
from quire.kernels.triton import embed as triton_embed  # noqa: E402
from quire.kernels.triton import gather as triton_gather  # noqa: E402
from quire.kernels.triton import pages as triton_pages  # noqa: E402
from quire.kernels.triton import rms_norm as triton_rms_norm  # noqa: E402
from quire.kernels.triton import silu_mul as triton_silu_mul  # noqa: E402

pytestmark = pytest.mark.triton
ROWS = (0, 1, 2, 3, 7, 17)
COLUMNS = (1, 8, 33, 100, 1030)
FLOATS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}


def some(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("num_columns", COLUMNS)
def test_rms_norm(dtype: str, num_columns: int) -> None:
    rng = np.random.default_rng(num_columns)
    for num_rows in ROWS[:4]:
        x, weight = some(rng, num_rows, num_columns, dtype=dtype), some(rng, num_columns)
        out = torch.empty_like(x)
        triton_rms_norm.rms_norm(x, weight, 1e-5, out)
        expected = rms_norm.rms_norm(x.float().numpy(), weight.numpy(), 1e-5)
        np.testing.assert_allclose(out.float().numpy(), expected, rtol=FLOATS[dtype], atol=FLOATS[dtype])


def test_rms_norm_in_place_and_after_a_residual() -> None:
    rng = np.random.default_rng(3)
    x, delta, weight = some(rng, 5, 70), some(rng, 5, 70), some(rng, 70)
    expected_x = (x + delta).numpy()
    out = torch.empty_like(x)
    triton_rms_norm.rms_norm(x, weight, 1e-6, out, delta)
    np.testing.assert_array_equal(x.numpy(), expected_x)
    expected = rms_norm.rms_norm(expected_x, weight.numpy(), 1e-6)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
    triton_rms_norm.rms_norm(x, weight, 1e-6, x)
    np.testing.assert_array_equal(x.numpy(), out.numpy())


@pytest.mark.parametrize("dtype", FLOATS)
def test_silu_mul(dtype: str) -> None:
    rng = np.random.default_rng(4)
    for num_rows in ROWS:
        for num_columns in COLUMNS:
            x = some(rng, num_rows, 2 * num_columns, dtype=dtype)
            out = torch.empty((num_rows, num_columns), dtype=x.dtype)
            triton_silu_mul.silu_mul(x, out)
            expected = silu_mul.silu_mul(x.float().numpy())
            np.testing.assert_allclose(out.float().numpy(), expected, rtol=FLOATS[dtype], atol=FLOATS[dtype])


def test_gather_rows_in_any_order_and_none() -> None:
    rng = np.random.default_rng(5)
    x = some(rng, 9, 1030, dtype="bfloat16")
    for rows in ([], [0], [8, 8, 0, 3]):
        chosen = torch.tensor(rows, dtype=torch.int32)
        out = torch.empty((len(rows), 1030), dtype=x.dtype)
        triton_gather.gather_rows(x, chosen, out)
        np.testing.assert_array_equal(out.float().numpy(), gather.gather_rows(x.float().numpy(), np.array(rows, int)))


@pytest.mark.parametrize(
    ("dtype", "group_size", "symmetric"),
    [
        ("bfloat16", 0, True),
        ("float32", 0, True),
        ("int8", 0, True),
        ("int8", 32, True),
        ("fp8", 0, True),
        ("int4", 32, True),
        ("int4", 64, False),
        ("int4", 0, True),
    ],
)
def test_embed_widens_every_format(dtype: str, group_size: int, symmetric: bool) -> None:
    rng = np.random.default_rng(6)
    matrix = some(rng, 11, 1090)
    if dtype in ("bfloat16", "float32"):
        weight = joined([matrix], dtype)
    else:
        weight = quantized([matrix], dtype, group_size, symmetric)
    for ids in ([], [10], [3, 0, 10, 3]):
        chosen = torch.tensor(ids, dtype=torch.int32)
        out, expected = torch.full((2, len(ids), weight.k), torch.nan)
        triton_embed.embed(chosen, weight, out)
        if ids:
            torch_embed(chosen, weight, expected)
        np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)
    assert weights.TORCH_DTYPES[dtype] == weight.data.dtype


@pytest.mark.parametrize("dtype", PAGE_DTYPES)
def test_copy_blocks_copies_all_layers_and_nothing_else(dtype: str) -> None:
    rng = np.random.default_rng(7)
    data = some(rng, 3, 2, 6, 16, 2, 20).to(PAGE_DTYPES[dtype])
    scales = some(rng, 3, 2, 6, 16, 2) if dtype in ("int8", "fp8") else None
    ours, theirs = Pages(data.clone(), None if scales is None else scales.clone()), Pages(data, scales)
    for sources, destinations in (([], []), ([5, 5, 0], [1, 2, 4])):
        pair = torch.tensor([sources, destinations], dtype=torch.int64)
        triton_pages.copy_blocks(ours, pair[0], pair[1])
        theirs.copy_blocks(pair[0], pair[1])
    np.testing.assert_array_equal(ours.data.float().numpy(), theirs.data.float().numpy())
    if scales is not None:
        np.testing.assert_array_equal(ours.scales.numpy(), scales.numpy())
