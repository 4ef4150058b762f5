"""Every op of the torch backend through its door, on the CPU in float32, against the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quire.kernels.reference import attention as reference_attention
from quire.kernels.reference import quantize as reference_quantize
from quire.kernels.reference import rope_store as reference_rope
from quire.kernels.reference.embed import embed as reference_embed
from quire.kernels.reference.kv_cache import ReferenceKVCache
from quire.kernels.reference.linear import linear as reference_linear
from quire.kernels.reference.rms_norm import rms_norm as reference_norm
from quire.kernels.reference.silu_mul import silu_mul as reference_silu
from quire.ops.attention import attention
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.gather import gather_rows
from quire.ops.linear import linear, pack, quantize, unpack
from quire.ops.open_device import make_kv_cache, open_device
from quire.ops.rms_norm import rms_norm
from quire.ops.rope_store import rope_store
from quire.ops.silu_mul import silu_mul

torch = pytest.importorskip("torch")

ROWS = (1, 2, 7, 33, 130)


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "invariant"])
def device(request: pytest.FixtureRequest) -> Device:
    return open_device("torch:cpu", threads=1, dtype="float32", batch_invariant=request.param)


def call(device: Device, op: Any, out_shape: tuple[int, ...], *arrays: Any, old: Any = None, **more: Any) -> Any:
    """`op` with NumPy arguments on the device; what it wrote."""
    out = device.put(np.full(out_shape, np.nan, np.float32) if old is None else old)
    op(device, *(device.put(x) if isinstance(x, np.ndarray) else x for x in arrays), out, **more)
    return device.fetch(out)


@pytest.mark.parametrize("num_rows", ROWS)
def test_rms_norm(device: Device, num_rows: int) -> None:
    x, weight = random(1, num_rows, 70), random(2, 70)
    out = device.put(np.empty_like(x))
    rms_norm(device, device.put(x), device.put(weight), 1e-5, out)
    assert np.allclose(device.fetch(out), reference_norm(x, weight, 1e-5), atol=1e-5)


@pytest.mark.parametrize("num_rows", ROWS)
def test_silu_mul(device: Device, num_rows: int) -> None:
    x = random(1, num_rows, 26) * 20
    x[0, 0] = -200.0
    assert np.allclose(call(device, silu_mul, (num_rows, 13), x), reference_silu(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("inside", [None, "norm", "silu"])
def test_linear(device: Device, num_rows: int, accumulate: bool, bias: bool, inside: str | None) -> None:
    x, parts, bias_N = random(1, num_rows, 90), [random(2, 20, 90), random(3, 11, 90)], random(4, 31)
    old = random(5, num_rows, 31)
    more: dict[str, Any] = {"accumulate": accumulate}
    expected_x = x
    if inside == "norm":
        weight = random(6, 90)
        more["norm"], expected_x = (device.put(weight), 1e-5), reference_norm(x, weight, 1e-5)
    elif inside == "silu":
        x = random(7, num_rows, 180)
        more["silu"], expected_x = True, reference_silu(x)
    if bias:
        more["bias_N"] = device.put(bias_N)
    got = call(device, linear, (num_rows, 31), x, pack(device, parts, "float32"), old=old, **more)
    expected = reference_linear(
        expected_x, np.concatenate(parts), "float32", bias_N if bias else None, old if accumulate else None
    )
    assert np.allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(("bits", "group", "symmetric"), [
    (8, None, True), (8, 64, True), (4, None, True), (4, 32, True), (4, 128, True), (4, 32, False), (4, 64, False),
])  # fmt: skip
@pytest.mark.parametrize("num_inputs", [96, 101])
def test_quantized_weights_are_the_reference_s(
    device: Device, bits: int, group: int | None, symmetric: bool, num_inputs: int
) -> None:
    parts = [random(2, 20, num_inputs), random(3, 13, num_inputs) * 7]
    parts[0][3] = 0.0
    weight = quantize(device, parts, bits, group, symmetric)
    expected = reference_quantize.quantize(np.concatenate(parts), bits, group, symmetric)
    got = unpack(device, weight)
    assert (weight.n, weight.k, weight.symmetric) == (33, num_inputs, symmetric)
    assert np.mean(got != expected) < 0.001, "scales that sums in another order round differently are rare"
    x = random(4, 5, num_inputs)
    product = call(device, linear, (5, 33), x, weight)
    assert np.allclose(product, x @ got.T, atol=1e-3)


def test_weights_in_fp8_are_near_and_have_one_scale_a_row(device: Device) -> None:
    part = random(2, 20, 96) * np.exp2(np.arange(20, dtype=np.float32) - 10)[:, None]
    got = unpack(device, pack(device, [part], "fp8"))
    assert (np.abs(got - part) <= np.abs(part) / 14 + np.abs(part).max(axis=1, keepdims=True) / 448).all()


def test_weights_that_are_not_finite_are_refused(device: Device) -> None:
    part = random(2, 4, 96)
    part[1, 1] = np.inf
    with pytest.raises(ValueError, match="infinite or NaN"):
        quantize(device, [part], 8)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_embed_and_gather(device: Device, kind: str) -> None:
    weight, ids = random(1, 50, 24), np.array([3, 49, 0, 3], np.int32)
    got = call(device, embed, (4, 24), ids, pack(device, [weight], kind))
    assert np.array_equal(got, reference_embed(ids, weight, kind))
    rows = np.array([2, 0, 2], np.int32)
    assert np.array_equal(call(device, gather_rows, (3, 24), weight, rows), weight[rows])


def test_embed_from_quantized_weights(device: Device) -> None:
    weight, ids = quantize(device, [random(1, 50, 64)], 4, 32), np.array([3, 49, 0, 3], np.int32)
    assert np.array_equal(call(device, embed, (4, 64), ids, weight), unpack(device, weight)[ids])


TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02, "float16": 2e-3, "int8": 0.04, "fp8": 0.08}
LENGTHS = ((1, 1), (16, 1), (17, 17), (40, 3), (129, 1), (200, 70))  # tokens, of which the last so many are queries


@pytest.mark.parametrize("kv_dtype", TOLERANCE)
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(4, 2, 16), (7, 1, 8), (3, 3, 20), (8, 2, 64)])
def test_rope_store_and_attention(
    device: Device, kv_dtype: str, num_heads: int, num_kv_heads: int, head_dim: int
) -> None:
    """Both, one after the other, on shuffled blocks: what is stored, the rotated queries, and what they find."""
    rng = np.random.default_rng(3)
    counts = [-(-length // 16) for length, _ in LENGTHS]
    blocks = rng.permutation(sum(counts) + 3).astype(np.int32)
    tables = np.zeros((len(LENGTHS), max(counts) + 1), np.int32)
    for seq, count in enumerate(counts):
        tables[seq, :count] = blocks[sum(counts[:seq]) :][:count]
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length, _ in LENGTHS])
    owners = np.repeat(np.arange(len(LENGTHS)), [length for length, _ in LENGTHS])
    slots = (tables[owners, positions // 16] * 16 + positions % 16).astype(np.int32)
    angles = rng.uniform(-3, 3, (256, head_dim // 2))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    q_norm, k_norm = (rng.uniform(0.5, 2, head_dim).astype(np.float32) for _ in range(2))
    qkv = random(1, len(positions), (num_heads + 2 * num_kv_heads) * head_dim)
    sizes = (2, len(blocks), 16, num_kv_heads, head_dim)
    kv, expected_kv = make_kv_cache(device, *sizes, kv_dtype), ReferenceKVCache(*sizes, "float32")
    expected_q = np.empty((len(positions), num_heads, head_dim), np.float32)
    reference_rope.rope_store(qkv, positions, slots, cos, sin, expected_kv, 1, q_norm, k_norm, 1e-6, expected_q)
    arrays = [device.put(array) for array in (qkv, positions, slots, cos, sin)]
    q_out = device.put(np.empty_like(expected_q))
    rope_store(device, *arrays, kv, 1, device.put(q_norm), device.put(k_norm), 1e-6, q_out)
    assert np.allclose(device.fetch(q_out), expected_q, atol=1e-5)
    for block in blocks[: sum(counts)].tolist():
        for got, expected in zip(kv.read(1, block), expected_kv.read(1, block), strict=True):
            written = np.isfinite(expected)
            assert np.allclose(got[written], expected[written], rtol=TOLERANCE[kv_dtype], atol=TOLERANCE[kv_dtype])
    chosen = [np.arange(length - new, length) + sum(each for each, _ in LENGTHS[:seq])
              for seq, (length, new) in enumerate(LENGTHS)]  # fmt: skip
    q = expected_q[np.concatenate(chosen)]
    starts = np.cumsum([0, *(new for _, new in LENGTHS)]).astype(np.int32)
    lengths = np.array([length for length, _ in LENGTHS], np.int32)
    held = ReferenceKVCache(*sizes, "float32")
    for block in blocks.tolist():
        held.k_LBPGD[1, block], held.v_LBPGD[1, block] = kv.read(1, block)
    expected = np.empty((len(q), num_heads * head_dim), np.float32)
    reference_attention.attention(q, held, 1, starts, lengths, tables, 0.3, expected)
    out = device.put(np.full_like(expected, np.nan))
    attention(device, device.put(q), kv, 1, *map(device.put, (starts, lengths, tables)), 0.3, out)
    assert np.allclose(device.fetch(out), expected, atol=2e-5)


@pytest.mark.parametrize("kv_dtype", TOLERANCE)
def test_blocks_are_copied_in_order(device: Device, kv_dtype: str) -> None:
    kv = make_kv_cache(device, 2, 6, 16, 2, 8, kv_dtype)
    kv.pages.data.view(torch.uint8).copy_(torch.arange(6, dtype=torch.uint8).view(1, 1, 6, 1, 1, 1))
    if kv.pages.scales is not None:
        kv.pages.scales.copy_(torch.arange(6.0).view(1, 1, 6, 1, 1))
    held = [kv.pages.data.view(torch.uint8)[1, 1, block, 0, 0, 0].item() for block in range(6)]
    pairs = [(0, 1), (1, 2), (3, 0), (4, 5), (5, 3)]
    for source, destination in pairs:
        held[destination] = held[source]
    kv.copy_blocks(pairs)
    assert [kv.pages.data.view(torch.uint8)[0, 0, block, 3, 1, 0].item() for block in range(6)] == held
    if kv.pages.scales is not None:
        assert kv.pages.scales[1, 1, :, 5, 1].tolist() == held
    with pytest.raises(ValueError, match="outside"):
        kv.copy_blocks([(0, 6)])


def test_a_cache_knows_its_bytes(device: Device) -> None:
    assert make_kv_cache(device, 2, 6, 16, 2, 8, "bfloat16").block_nbytes == 2 * 2 * 16 * 2 * 8 * 2
    assert make_kv_cache(device, 2, 6, 16, 2, 8, "fp8").nbytes == 6 * 2 * 2 * 16 * 2 * (8 + 4)
    with pytest.raises(ValueError, match="no pages"):
        make_kv_cache(device, 2, 6, 16, 2, 8, "int3")
