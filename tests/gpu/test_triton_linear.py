"""Products with every format of weights, under the interpreter, against float64 sums of what the weights stand for."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from quire.kernels.reference.linear import linear as reference_linear  # noqa: E402
from quire.kernels.torch.linear import linear as torch_linear  # noqa: E402
from quire.kernels.torch.pack import joined, quantized  # noqa: E402
from quire.kernels.torch.weight import Weight  # noqa: E402
from quire.kernels.triton import tiles  # noqa: E402
from quire.kernels.triton.linear import linear  # noqa: E402
from quire.kernels.triton.round_rows import round_rows  # noqa: E402

pytestmark = pytest.mark.triton
ROWS = (1, 2, 3, 7, 16, 17, 33)
FORMATS = [
    ("bfloat16", 0, True),
    ("int8", 0, True),
    ("int8", 32, True),
    ("fp8", 0, True),
    ("fp8", 64, True),
    ("int4", 0, True),
    ("int4", 32, True),
    ("int4", 128, True),
    ("int4", 64, False),
]


def some(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(dtype)


def make_weight(rng: np.random.Generator, n: int, k: int, dtype: str, group_size: int = 0, symmetric: bool = True):
    matrix = some(rng, n, k)
    if dtype in ("bfloat16", "float16", "float32"):
        return joined([matrix], dtype)
    return quantized([matrix], dtype, group_size, symmetric)


def expected(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None = None, old: torch.Tensor | None = None):
    arrays = [None if part is None else part.float().numpy() for part in (bias, old)]
    return reference_linear(x.float().numpy(), weight.rows().numpy(), "float32", *arrays)


def close(found: torch.Tensor, wanted: np.ndarray, k: int, dtype: torch.dtype = torch.float32) -> None:
    step = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    np.testing.assert_allclose(found.float().numpy(), wanted, rtol=step, atol=step * k**0.5)


@pytest.mark.parametrize(("dtype", "group_size", "symmetric"), FORMATS)
def test_every_format_for_awkward_sizes(dtype: str, group_size: int, symmetric: bool) -> None:
    rng = np.random.default_rng(group_size)
    weight = make_weight(rng, 35, 202, dtype, group_size, symmetric)
    for num_rows in (0, *(ROWS if group_size == 0 and dtype != "int4" else ROWS[-3:-1])):
        x, out = some(rng, num_rows, 202), torch.full((num_rows, 35), torch.nan)
        linear(x, weight, out)
        close(out, expected(x, weight), 202)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", ["bfloat16", "float16", "int8", "fp8", "int4"])
def test_narrow_rows(dtype: torch.dtype, format: str) -> None:
    rng = np.random.default_rng(2)
    if format in ("bfloat16", "float16"):
        format = str(dtype).removeprefix("torch.")
    weight = make_weight(rng, 48, 130, format)
    for num_rows in (1, 17):
        x, out = some(rng, num_rows, 130, dtype=dtype), torch.empty((num_rows, 48), dtype=dtype)
        linear(x, weight, out)
        close(out, expected(x, weight), 130, dtype)
        wide = torch.empty((num_rows, 48))
        linear(x, weight, wide)
        close(wide, expected(x, weight), 130)


@pytest.mark.parametrize("num_rows", [1, 5, 16, 40])
@pytest.mark.parametrize("format", ["float32", "int8"])
def test_bias_old_output_norm_and_gate(num_rows: int, format: str) -> None:
    rng = np.random.default_rng(num_rows)
    weight, bias = make_weight(rng, 40, 100, format), some(rng, 40)
    for norm, silu in ((None, False), (some(rng, 100), False), (None, True)):
        x, old = some(rng, num_rows, 200 if silu else 100), some(rng, num_rows, 40)
        out, wanted = old.clone(), old.clone()
        linear(x, weight, out, bias, True, norm, 1e-3, silu)
        torch_linear(x, weight, wanted, bias, True, norm, 1e-3, silu)
        close(out, wanted.numpy(), 100)


@pytest.mark.parametrize("format", ["bfloat16", "int8", "int4"])
def test_split_inputs_are_added_up(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LEAST_INPUTS_A_SPLIT", 64)
    rng = np.random.default_rng(8)
    weight, bias, norm = make_weight(rng, 20, 600, format), some(rng, 20), some(rng, 600)
    assert tiles.linear_tile(3, 20, 600, 8, 0, False).num_splits == 8
    x, out = some(rng, 3, 600), some(rng, 3, 20)
    wanted = out.clone()
    linear(x, weight, out, bias, True, norm, 1e-5)
    torch_linear(x, weight, wanted, bias, True, norm, 1e-5)
    close(out, wanted.numpy(), 600)


@pytest.mark.parametrize(("format", "group_size"), [("int8", 0), ("int8", 64), ("fp8", 0)])
def test_rows_rounded_like_the_weight(format: str, group_size: int) -> None:
    rng = np.random.default_rng(9)
    weight = make_weight(rng, 33, 150, format, group_size)
    for num_rows in (1, 7, 70):
        x, out = some(rng, num_rows, 150), torch.empty((num_rows, 33))
        linear(x, weight, out, rounded=True)
        q, scales = round_rows(x, weight.data.dtype)
        close(out, expected(q.float() * scales[:, None], weight), 150)
        assert (q.float() * scales[:, None] - x).abs().max() <= x.abs().max() * (0.0625 if format == "fp8" else 0.004)


def test_rows_of_zeros_are_rounded_to_zeros() -> None:
    q, scales = round_rows(torch.zeros(2, 9), torch.int8)
    assert not q.any()
    assert (scales > 0).all()


def test_large_tiles() -> None:
    rng = np.random.default_rng(10)
    for format in ("int8", "int4"):
        weight = make_weight(rng, 150, 200, format)
        x, out = some(rng, 140, 200), torch.empty((140, 150))
        linear(x, weight, out)
        close(out, expected(x, weight), 200)


@pytest.mark.parametrize(("format", "group_size"), [("bfloat16", 0), ("int8", 0), ("int4", 32)])
def test_a_row_has_the_same_bits_alone_and_in_company(
    format: str, group_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "LEAST_INPUTS_A_SPLIT", 64)
    rng = np.random.default_rng(11)
    weight, norm = make_weight(rng, 72, 256, format, group_size), some(rng, 256)
    x, together = some(rng, 70, 256, dtype=torch.bfloat16), torch.empty((70, 72), dtype=torch.bfloat16)
    linear(x, weight, together, None, False, norm, 1e-5, invariant=True)
    for first, last in ((0, 1), (69, 70), (3, 20)):
        out = torch.empty((last - first, 72), dtype=torch.bfloat16)
        linear(x[first:last], weight, out, None, False, norm, 1e-5, invariant=True)
        np.testing.assert_array_equal(out.float().numpy(), together[first:last].float().numpy())


def test_tiles_fit_shared_memory() -> None:
    for num_rows in (1, 16, 17, 64, 65, 8192):
        for n, k in ((1024, 1024), (4096, 14336), (28672, 4096), (128256, 4096)):
            for bits, group in ((4, 32), (4, 128), (8, 0), (16, 0), (32, 0)):
                for invariant in (False, True):
                    tile = tiles.linear_tile(num_rows, n, k, bits, group, invariant)
                    x_bytes = tile.block_m * tile.block_k * (4 if bits == 32 else 2)
                    stage = x_bytes + tile.block_n * tile.block_k * bits // 8
                    widened = tile.block_n * tile.block_k * 2
                    assert stage * tile.num_stages + widened <= 227 * 1024
                    assert group == 0 or group % tile.block_k == 0
