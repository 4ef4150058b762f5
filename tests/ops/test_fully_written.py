"""Rule F: every op writes all of its outputs and nothing beside them: no answer holds what was in memory before.

Each output lies between two guards, and is filled with one pattern, then with another: what comes out is the same, and
the guards are as they were. An op without a probe here fails.

Knows: the doors' outputs. Does not know: what is right (the ops' own tests do).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quire
from quire.ops.attention import attention
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.gather import gather_rows
from quire.ops.kv_cache import KVCache
from quire.ops.linear import linear, pack, quantize, quantize_planes
from quire.ops.rms_norm import rms_norm
from quire.ops.rope_store import rope_store
from quire.ops.sample import ROW, Drawn, Rows, sample
from quire.ops.silu_mul import silu_mul

DeviceOf = Callable[[int], Device]
GUARD = 256  # bytes on either side
PATTERNS = (0xA5, 0x5A)
# Ops without an output that a caller gives.
NO_OUTPUT = {
    "pack": "a new weight, whose bytes tests/ops/test_pack.py compares",
    "quantize_planes": "a new weight, whose numbers tests/ops/test_planes.py compares",
    "refine": "changes what an op has written, and no more than it says (tests/ops/test_planes.py)",
    "quantize": "a new weight, whose bytes tests/ops/test_quantized.py compares",
    "unpack": "an array of its own, compared whole in tests/ops/test_pack.py",
    "read_all": "reads for the roofline",
    "multiply": "counts for the roofline",
    "instruction": "a name",
    "make_kv_cache": "a cache of zeros",
    "make_arena": "scratch memory, undefined until it is written",
}


class Room:
    """Outputs that begin as one pattern, between guards of it."""

    def __init__(self, pattern: int) -> None:
        self.pattern = pattern
        self.outputs: list[tuple[Any, Any]] = []

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        whole = np.full(size + 2 * GUARD, self.pattern, np.uint8)
        view = whole[GUARD : GUARD + size].view(dtype).reshape(shape)
        self.outputs.append((whole, view))
        return view

    def check_guards(self) -> None:
        for whole, view in self.outputs:
            assert (whole[:GUARD] == self.pattern).all(), "written before the output"
            assert (whole[GUARD + view.nbytes :] == self.pattern).all(), "written behind the output"


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def probe_linear(device: Device, room: Room) -> None:
    for rows in (1, 2, 7, 33):
        for n, k in ((1, 1), (63, 65), (70, 172)):
            parts = [random(n, k)]
            weights = [pack(device, parts, "bfloat16"), pack(device, parts, "float32"), quantize(device, parts, 8)]
            for weight in (*weights, quantize(device, parts, 4, 32), quantize_planes(device, parts)):
                linear(device, random(rows, k), weight, room.array((rows, n)))


def probe_embed(device: Device, room: Room) -> None:
    for width in (1, 7, 65):
        weight = pack(device, [random(20, width)], "bfloat16")
        embed(device, np.array([3, 19, 0, 3], np.int32), weight, room.array((4, width)))


def probe_gather_rows(device: Device, room: Room) -> None:
    for width in (1, 7, 65):
        gather_rows(device, random(9, width), np.array([8, 0, 8, 3, 1], np.int32), room.array((5, width)))


def probe_rms_norm(device: Device, room: Room) -> None:
    for width in (1, 15, 17, 64, 129):
        rms_norm(device, random(5, width), random(width), 1e-6, room.array((5, width)))


def probe_silu_mul(device: Device, room: Room) -> None:
    for width in (1, 15, 17, 64, 129):
        silu_mul(device, random(5, 2 * width), room.array((5, width)))


def cache_of(device: Device, room: Room, dtype: str, head_dim: int, num_tokens: int) -> KVCache:
    """A cache with `num_tokens` in blocks 1, 2, ... of layer 1; the rotated queries are an output too."""
    kv = KVCache(2, 5, 16, 2, head_dim, dtype)
    cos, sin = random(64, head_dim // 2), random(64, head_dim // 2)
    positions = np.arange(num_tokens, dtype=np.int32)
    slots = (16 + positions).astype(np.int32)
    qkv, out = random(num_tokens, 8 * head_dim), room.array((num_tokens, 4, head_dim))
    norm = random(head_dim)
    rope_store(device, qkv, positions, slots, cos, sin, kv, 1, norm, norm, 1e-6, out)
    return kv


def probe_rope_store(device: Device, room: Room) -> None:
    for dtype in ("bfloat16", "float32", "int8"):
        for head_dim in (2, 24, 64):
            kv = cache_of(device, room, dtype, head_dim, 37)
            for block in (1, 2):
                for half in kv.read(1, block):
                    room.array(half.shape, half.dtype)[...] = half


def probe_attention(device: Device, room: Room) -> None:
    for dtype in ("bfloat16", "float32", "int8"):
        for head_dim in (8, 24, 64):
            kv = cache_of(device, Room(0), dtype, head_dim, 40)
            tables = np.array([[1, 2, 3, -1], [1, 2, 3, -1]], np.int32)
            starts, lens = np.array([0, 9, 10], np.int32), np.array([9, 40], np.int32)
            q = random(10, 4, head_dim)
            attention(device, q, kv, 1, starts, lens, tables, 0.2, room.array((10, 4 * head_dim)))


def probe_sample(device: Device, room: Room) -> None:
    """Log probabilities are written where they are asked for, and nowhere else: so they are asked for everywhere."""
    for size in (1, 33, 300):
        rows = np.zeros(4, ROW)
        rows["top_p"], rows["repetition"], rows["num_draws"], rows["given"] = 1, 1, 2, -1
        rows["first_draw"], rows["seed"], rows["inv_temperature"] = 2 * np.arange(4), 5, [0, 1, 1, 2]
        rows["num_top"] = min(3, size)
        given = Rows(rows, np.tile(np.arange(2, dtype=np.int32), 4), np.zeros(0, np.int32), np.zeros(0, np.float32))
        num_top = min(3, size)
        drawn = Drawn(
            room.array((8,), np.int32), room.array((4,), np.int32), room.array((8,), np.float64),
            room.array((8,), np.int32), room.array((4, num_top), np.int32), room.array((4, num_top), np.float64),
        )  # fmt: skip
        sample(device, random(4, size), given, drawn)


PROBES: dict[str, Callable[[Device, Room], None]] = {
    "attention": probe_attention,
    "embed": probe_embed,
    "gather_rows": probe_gather_rows,
    "linear": probe_linear,
    "rms_norm": probe_rms_norm,
    "rope_store": probe_rope_store,
    "sample": probe_sample,
    "silu_mul": probe_silu_mul,
}


def doors() -> set[str]:
    """Every public function of quire/ops that takes a device first."""
    found = set()
    for path in (Path(quire.__file__).parent / "ops").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if is_public and [argument.arg for argument in node.args.args[:1]] == ["device"]:
                found.add(node.name)
    return found


def test_every_op_has_a_probe_or_a_reason() -> None:
    assert doors() == set(PROBES) | set(NO_OUTPUT)


@pytest.mark.parametrize("op", PROBES)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_output_is_written_whole_and_nothing_beside_it(device_of: DeviceOf, op: str, threads: int) -> None:
    rooms = [Room(pattern) for pattern in PATTERNS]
    for room in rooms:
        PROBES[op](device_of(threads), room)
        room.check_guards()
    first, second = rooms
    assert len(first.outputs) == len(second.outputs) > 0
    for (_, one), (_, other) in zip(first.outputs, second.outputs, strict=True):
        assert one.tobytes() == other.tobytes(), f"{op} leaves a part of {one.shape} {one.dtype} as it was"


def test_a_hole_is_seen() -> None:
    rooms = [Room(pattern) for pattern in PATTERNS]
    for room in rooms:
        room.array((4,))[:3] = 1.0
        room.check_guards()
    assert rooms[0].outputs[0][1].tobytes() != rooms[1].outputs[0][1].tobytes()
    rooms[0].outputs[0][0][GUARD - 1] = 0
    with pytest.raises(AssertionError, match="before the output"):
        rooms[0].check_guards()
