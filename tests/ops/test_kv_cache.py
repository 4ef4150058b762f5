"""The paged cache: sizes, block copies, lazy memory, refusals. Contents are written through rope_store, as in the
engine."""

from __future__ import annotations

import time

import numpy as np
import pytest

from quire.ops.device import Device
from quire.ops.kv_cache import KVCache, block_nbytes, blocks_ahead
from quire.ops.rope_store import rope_store

SHAPE = {"num_layers": 3, "num_blocks": 5, "block_size": 32, "num_kv_heads": 2, "head_dim": 24}


def write(device, kv, layer, slots, seed):
    """Random keys and values at `slots`, unrotated; returns (k, v), each [T, G, D]."""
    rng = np.random.default_rng(seed)
    num_tokens, heads, dim = len(slots), kv.num_kv_heads, kv.head_dim
    qkv = rng.standard_normal((num_tokens, (1 + 2 * heads) * dim), dtype=np.float32)
    cos, sin = np.ones((1, dim // 2), np.float32), np.zeros((1, dim // 2), np.float32)
    q_out = np.empty((num_tokens, 1, dim), np.float32)
    positions = np.zeros(num_tokens, np.int32)
    rope_store(device, qkv, positions, np.asarray(slots, np.int32), cos, sin, kv, layer, None, None, 1e-6, q_out)
    k, v = qkv[:, dim:].reshape(num_tokens, 2, heads, dim).transpose(1, 0, 2, 3)
    return k, v


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize(("dtype", "element_bytes"), [("bfloat16", 2), ("float32", 4), ("int8", 1)])
def test_block_nbytes_counts_both_halves_and_the_padding_of_values(dtype, element_bytes):
    kv = KVCache(**SHAPE, dtype=dtype)
    elements = 3 * 2 * 32 * (24 + 32)  # layers, heads, tokens, head_dim of keys and of values rounded up to 16
    scale_bytes = 3 * 2 * 32 * 4 if dtype == "int8" else 0  # one of keys and one of values per token and head
    assert kv.block_nbytes == elements * element_bytes + scale_bytes
    assert kv.nbytes == 5 * kv.block_nbytes
    assert block_nbytes(3, 32, 2, 24, dtype) == kv.block_nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_copy_blocks_copies_every_layer_and_nothing_else(dtype):
    with Device(1) as device:
        kv = KVCache(**SHAPE, dtype=dtype)
        for layer in range(3):
            write(device, kv, layer, range(5 * 32), seed=layer)
        before = [[kv.read(layer, block) for block in range(5)] for layer in range(3)]
        kv.copy_blocks([(0, 3), (4, 4), (3, 1)])  # in order: 1 receives what 3 has just received
        source_of = [0, 0, 2, 0, 4]
        for layer in range(3):
            for block in range(5):
                for got, want in zip(kv.read(layer, block), before[layer][source_of[block]], strict=True):
                    np.testing.assert_array_equal(got, want)


def test_copy_of_an_unknown_block_is_refused_before_anything_is_copied():
    with Device(1) as device:
        kv = KVCache(**SHAPE, dtype="float32")
        write(device, kv, 0, range(5 * 32), seed=0)
        before = kv.read(0, 1)
        for pair in [(0, 5), (-1, 0), (1 << 40, 0)]:
            with pytest.raises(ValueError, match="block is out of range"):
                kv.copy_blocks([(0, 1), pair])
        np.testing.assert_array_equal(kv.read(0, 1), before)
        kv.copy_blocks([])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_size": 0}, "block_size"),
        ({"block_size": 24}, "block_size"),
        ({"block_size": 144}, "block_size"),
        ({"head_dim": 7}, "head_dim"),
        ({"head_dim": 0}, "head_dim"),
        ({"head_dim": 258}, "head_dim"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_blocks": -1}, "num_blocks"),
        ({"num_blocks": 1 << 31}, "num_blocks"),
        ({"num_kv_heads": 0}, "num_kv_heads"),
        ({"num_kv_heads": 1 << 30, "num_layers": 1 << 30}, "too large"),
        ({"num_kv_heads": 1 << 20, "num_layers": 1 << 20}, "too large"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_sizes_out_of_range_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        KVCache(**{**SHAPE, "dtype": "bfloat16", **change})


def test_read_out_of_range_is_refused():
    kv = KVCache(**SHAPE)
    for layer, block in [(3, 0), (-1, 0), (0, 5), (0, -1)]:
        with pytest.raises(ValueError, match="out of range"):
            kv.read(layer, block)


def test_memory_is_touched_only_where_blocks_are_written():
    before = resident_bytes()
    kv = KVCache(num_layers=28, num_blocks=4096, block_size=16, num_kv_heads=8, head_dim=128)
    assert kv.nbytes == 7 << 30
    with Device(1) as device:
        for layer in range(28):
            write(device, kv, layer, range(64), seed=0)
    grown = resident_bytes() - before
    assert grown < 4 * kv.block_nbytes + (16 << 20)


def ready(kv, num_blocks):
    """Wait, a minute at most, until that many blocks are ready; what is ready."""
    end = time.monotonic() + 60
    while kv.num_ready < num_blocks and time.monotonic() < end:
        time.sleep(0.01)
    return kv.num_ready


def test_blocks_behind_the_last_written_one_become_resident_by_themselves():
    device = Device(1)
    kv = KVCache(4, 64, 32, 8, 128)  # 1 MB a block
    assert kv.num_ready == 0
    before = resident_bytes()
    kv.keep_ahead(8)
    assert ready(kv, 8) == 8
    write(device, kv, 1, [32 * 20], seed=0)
    write(device, kv, 0, [32 * 20, 5], seed=0)  # a step begins with layer 0
    assert ready(kv, 29) == 29
    grown = resident_bytes() - before
    # What was skipped counts as written, and is not resident.
    assert 16 * kv.block_nbytes < grown < 32 * kv.block_nbytes
    write(device, kv, 0, [32 * 60], seed=0)
    assert ready(kv, 64) == 64  # not beyond the end


def test_what_is_made_resident_while_it_is_written_is_not_changed():
    device = Device(2)
    kv = KVCache(1, 512, 16, 2, 16, "float32")
    kv.keep_ahead(512)
    written = [(block, *write(device, kv, 0, [16 * block + 3], seed=block)) for block in range(0, 512, 7)]
    for block, k, v in written:
        for mine, theirs in zip(kv.read(0, block), (k, v), strict=True):
            np.testing.assert_array_equal(mine[3], theirs[0])
    assert ready(kv, 512) == 512


def test_a_cache_that_looks_ahead_can_be_dropped_at_once():
    for _ in range(20):
        kv = KVCache(4, 256, 32, 8, 128)
        kv.keep_ahead(256)
        del kv
    with pytest.raises(ValueError, match="blocks to keep ahead"):
        KVCache(**SHAPE).keep_ahead(-1)


@pytest.mark.parametrize(("sizes", "expected"), [((3, 9, 32, 2, 24), 256), ((80, 1, 16, 8, 128), 204)])
def test_an_engine_looks_ahead_as_far_as_a_burst_goes_and_a_gibibyte_at_most(sizes, expected):
    assert blocks_ahead(KVCache(*sizes)) == expected
