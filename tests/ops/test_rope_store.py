"""rope_store against the NumPy reference: every head size, both page types, every instruction set; and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference import rope_store as reference
from quire.kernels.reference.kv_cache import ReferenceKVCache
from quire.ops.device import Device, available_isas
from quire.ops.kv_cache import KVCache
from quire.ops.rope_store import rope_store

DTYPES = ["bfloat16", "float32", "int8"]
HEAD_DIMS = [2, 8, 10, 16, 24, 34, 64, 80, 96, 128, 256]


def case(head_dim, num_tokens=37, num_heads=6, num_kv_heads=2, seed=0):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-3, 3, (50, head_dim // 2))
    return {
        "qkv_TN": rng.standard_normal((num_tokens, (num_heads + 2 * num_kv_heads) * head_dim), dtype=np.float32) * 3,
        "positions_T": rng.integers(0, 50, num_tokens).astype(np.int32),
        "slots_T": rng.permutation(6 * 16)[:num_tokens].astype(np.int32),
        "cos_PD2": np.cos(angles).astype(np.float32),
        "sin_PD2": np.sin(angles).astype(np.float32),
        "q_norm_D": rng.uniform(0.5, 2, head_dim).astype(np.float32),
        "k_norm_D": rng.uniform(0.5, 2, head_dim).astype(np.float32),
    }


def run(device, kv, data, num_heads=6, layer=1, op=rope_store):
    q_out = np.full((len(data["qkv_TN"]), num_heads, kv.head_dim), np.nan, np.float32)
    first = () if device is None else (device,)
    op(*first, *(data[name] for name in ("qkv_TN", "positions_T", "slots_T", "cos_PD2", "sin_PD2")), kv, layer,
       data["q_norm_D"], data["k_norm_D"], 1e-6, q_out)  # fmt: skip
    return q_out


def contents(kv, layer, slots):
    blocks = [kv.read(layer, block) for block in range(kv.num_blocks)]
    k, v = (np.concatenate([pair[i] for pair in blocks]) for i in (0, 1))
    return k[slots], v[slots]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_agrees_with_the_reference(isa, dtype, normed, head_dim):
    data = case(head_dim)
    if not normed:
        data |= {"q_norm_D": None, "k_norm_D": None}
    block_size = 32 if head_dim == 64 else 16
    kv = KVCache(2, 96 // block_size, block_size, 2, head_dim, dtype)
    expected_kv = ReferenceKVCache(2, 96 // block_size, block_size, 2, head_dim, dtype)
    with Device(2, isa) as device:
        q = run(device, kv, data)
    expected_q = run(None, expected_kv, data, op=reference.rope_store)
    np.testing.assert_allclose(q, expected_q, rtol=2e-6, atol=4e-6)
    k, v = contents(kv, 1, data["slots_T"])
    expected_k, expected_v = contents(expected_kv, 1, data["slots_T"])
    np.testing.assert_array_equal(v, expected_v)
    # A key may fall on the other side of a rounding boundary: one unit in the last of 8 bits.
    unit = np.abs(expected_k).max(axis=-1, keepdims=True) / 126 if dtype == "int8" else 0
    error = 2**-7 * np.abs(expected_k) if dtype == "bfloat16" else 2e-6 * np.abs(expected_k)
    assert (np.abs(k - expected_k) <= error + unit + 4e-6).all()
    if dtype == "bfloat16":
        np.testing.assert_array_equal(k, expected_kv.round(k))
    if dtype != "float32":
        assert np.mean(np.abs(k - expected_k) > error / 2 + 1e-2 * unit) < 0.01


def test_the_rotation_is_that_of_hugging_face():
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    data = case(64) | {"q_norm_D": None, "k_norm_D": None}
    with Device(1) as device:
        q = run(device, KVCache(2, 6, 16, 2, 64, "float32"), data)
    cos, sin = (torch.tensor(np.tile(data[name][data["positions_T"]], 2))[None] for name in ("cos_PD2", "sin_PD2"))
    x = torch.tensor(data["qkv_TN"][:, : 6 * 64].reshape(1, -1, 6, 64)).transpose(1, 2)
    expected, _ = llama.apply_rotary_pos_emb(x, x, cos, sin)
    np.testing.assert_array_equal(q, expected[0].transpose(0, 1).numpy())


@pytest.mark.parametrize("isa", available_isas())
@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 37), threads=st.integers(1, 3), dtype=st.sampled_from(DTYPES))
def test_any_division_into_launches_and_threads_gives_the_same_bits(isa, cut, threads, dtype):
    data = case(80)
    whole, parts = KVCache(2, 6, 16, 2, 80, dtype), KVCache(2, 6, 16, 2, 80, dtype)
    rows = ("qkv_TN", "positions_T", "slots_T")
    with Device(1, isa) as one, Device(threads, isa) as several:
        q_whole = run(one, whole, data)
        halves = [{name: data[name][part] for name in rows} for part in (slice(cut), slice(cut, None))]
        q_parts = [run(several, parts, data | half) for half in halves]
    np.testing.assert_array_equal(np.concatenate(q_parts), q_whole)
    for got, want in zip(contents(parts, 1, data["slots_T"]), contents(whole, 1, data["slots_T"]), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_slots_layers_and_rows_stay_as_they_were(dtype):
    data = case(24)
    data["qkv_TN"][5] = np.nan
    kv = KVCache(2, 6, 16, 2, 24, dtype)
    with Device(2) as device:
        q = run(device, kv, data)
    free = np.setdiff1d(np.arange(96), data["slots_T"])
    for array in (*contents(kv, 1, free), *contents(kv, 0, np.arange(96))):
        assert not array.any()
    assert np.isnan(q[5]).all()
    assert np.isfinite(np.delete(q, 5, axis=0)).all()
    for array in contents(kv, 1, data["slots_T"]):
        assert np.isnan(array[5]).all()
        assert np.isfinite(np.delete(array, 5, axis=0)).all()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("slots_T", 96, "slot"),
        ("slots_T", -1, "slot"),
        ("slots_T", np.iinfo(np.int32).min, "slot"),
        ("positions_T", 50, "position"),
        ("positions_T", -1, "position"),
    ],
)
def test_a_wild_index_is_refused_and_nothing_is_written(name, value, words):
    data = case(16)
    data[name][-1] = value
    kv = KVCache(2, 6, 16, 2, 16, "bfloat16")
    with Device(1) as device, pytest.raises(ValueError, match=words):
        run(device, kv, data)
    assert not np.concatenate(contents(kv, 1, np.arange(96))).any()


def test_wrong_shapes_types_and_layers_are_refused():
    data = case(16)
    with Device(1) as device:
        kv = KVCache(2, 6, 16, 2, 16, "bfloat16")
        for change in (
            {"qkv_TN": data["qkv_TN"][:, :-1].copy()},
            {"positions_T": data["positions_T"][:-1]},
            {"cos_PD2": data["cos_PD2"][:, :-1].copy()},
            {"sin_PD2": data["sin_PD2"][:-1]},
            {"k_norm_D": data["k_norm_D"][:-1]},
        ):
            with pytest.raises(ValueError, match="rope_store"):
                run(device, kv, data | change)
        for change in ({"slots_T": data["slots_T"].astype(np.int64)}, {"qkv_TN": data["qkv_TN"].astype(np.float64)}):
            with pytest.raises(TypeError):
                run(device, kv, data | change)
        for layer in (-1, 2):
            with pytest.raises(ValueError, match="layer"):
                run(device, kv, data, layer=layer)
