"""Programs: what was recorded runs again, on what its arrays hold by then. Knows: ops. Does not know: steps."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quire.ops.attention import attention
from quire.ops.device import Device
from quire.ops.embed import embed
from quire.ops.gather import gather_rows
from quire.ops.kv_cache import KVCache
from quire.ops.linear import linear, pack, unpack
from quire.ops.program import Program
from quire.ops.rms_norm import rms_norm
from quire.ops.rope_store import rope_store
from quire.ops.silu_mul import silu_mul

DeviceOf = Callable[[int], Device]

RNG = np.random.default_rng(5)
HIDDEN, VOCAB, HEADS, DIM = 32, 50, 2, 16
POSITIONS, BLOCKS, BLOCK = 64, 4, 16


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape, dtype=np.float32)


class Tiny:
    """One decoder-like row of every op, over arrays that stay where they are."""

    def __init__(self, device: Device, num_rows: int) -> None:
        self.device = device
        self.embedding = pack(device, [floats(VOCAB, HIDDEN)], "bfloat16")
        self.qkv = pack(device, [floats(3 * HEADS * DIM, HIDDEN)], "bfloat16")
        self.up = pack(device, [floats(2 * HIDDEN, HEADS * DIM)], "float32")
        self.bias, self.norm = floats(2 * HIDDEN), floats(HIDDEN)
        self.cos, self.sin = floats(POSITIONS, DIM // 2), floats(POSITIONS, DIM // 2)
        self.kv = KVCache(1, BLOCKS, BLOCK, HEADS, DIM)
        self.ids, self.positions, self.slots = (np.zeros(num_rows, np.int32) for _ in range(3))
        self.starts = np.arange(num_rows + 1, dtype=np.int32)
        self.lens = np.ones(num_rows, np.int32)
        self.tables = np.zeros((num_rows, 2), np.int32)
        self.rows = np.arange(num_rows, dtype=np.int32)
        self.x, self.out = floats(num_rows, HIDDEN), floats(num_rows, HIDDEN)
        self.wide, self.mixed = floats(num_rows, 3 * HEADS * DIM), floats(num_rows, HEADS * DIM)
        self.q, self.gate_up = floats(num_rows, HEADS, DIM), floats(num_rows, 2 * HIDDEN)

    def fill(self, step: int) -> None:
        """Inputs of the step; every sequence has a block of its own."""
        self.ids[:] = (7 * step + 3 * self.rows) % VOCAB
        self.positions[:] = step
        self.slots[:] = (self.rows + 1) * BLOCK + step
        self.lens[:] = step + 1
        self.tables[:, 0] = self.rows + 1

    def run(self) -> None:
        embed(self.device, self.ids, self.embedding, self.x)
        rms_norm(self.device, self.x, self.norm, 1e-6, self.x)
        linear(self.device, self.x, self.qkv, self.wide)
        rope_store(
            self.device, self.wide, self.positions, self.slots, self.cos, self.sin, self.kv, 0, None, None, 0.0, self.q
        )
        attention(self.device, self.q, self.kv, 0, self.starts, self.lens, self.tables, 0.25, self.mixed)
        linear(self.device, self.mixed, self.up, self.gate_up, self.bias)
        silu_mul(self.device, self.gate_up, self.x)
        gather_rows(self.device, self.x, self.rows, self.out)


def outputs(tiny: Tiny, run: Any, num_steps: int = 8) -> list[Any]:
    tiny.kv.copy_blocks([(0, block) for block in range(1, BLOCKS)])
    found = []
    for step in range(num_steps):
        tiny.fill(step)
        run()
        found.append(tiny.out.copy())
    return found


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_replay_computes_what_the_ops_compute(device_of: DeviceOf, threads: int) -> None:
    tiny = Tiny(device_of(threads), 3)
    expected = outputs(tiny, tiny.run)
    program = Program(tiny.device)
    with program.recording():
        tiny.run()
    assert len(program) == 8
    tiny.out.fill(np.nan)
    for found, wanted in zip(outputs(tiny, program.replay), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert not np.array_equal(expected[0], expected[1])


def test_recording_computes_too(device_of: DeviceOf) -> None:
    tiny = Tiny(device_of(2), 2)
    tiny.fill(0)
    tiny.run()
    wanted = tiny.out.copy()
    tiny.out.fill(np.nan)
    with Program(tiny.device).recording():
        tiny.run()
    assert np.array_equal(tiny.out, wanted)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("ids", VOCAB, "embed: ids_T"),
        ("ids", -1, "embed: ids_T"),
        ("positions", POSITIONS, "a position is outside"),
        ("slots", BLOCKS * BLOCK, "a slot is outside"),
        ("slots", -1, "a slot is outside"),
        ("starts", 1, "query_starts_S1 must begin with 0"),
        ("lens", 0, "seq_lens_S must count"),
        ("lens", 33, "too few columns"),
        ("tables", BLOCKS, "names a block outside"),
        ("tables", -5, "names a block outside"),
        ("rows", 9, "rows_R must be"),
    ],
)
def test_every_index_is_checked_at_every_replay(device_of: DeviceOf, array: str, value: int, message: str) -> None:
    tiny = Tiny(device_of(2), 2)
    program = Program(tiny.device)
    tiny.fill(0)
    with program.recording():
        tiny.run()
    held = getattr(tiny, array).flat
    good, held[0] = held[0], value
    with pytest.raises(ValueError, match=message):
        program.replay()
    held[0] = good
    program.replay()


def test_a_program_keeps_its_arrays_weights_and_caches_alive(device_of: DeviceOf) -> None:
    tiny = Tiny(device_of(1), 2)
    tiny.fill(0)
    tiny.run()
    wanted, out, program = tiny.out.copy(), tiny.out, Program(tiny.device)
    with program.recording():
        tiny.run()
    out.fill(np.nan)
    del tiny
    gc.collect()
    junk = [np.full(2**16, np.nan, np.float32) for _ in range(50)]
    program.replay()
    assert np.array_equal(out, wanted)
    assert len(junk) == 50


def test_what_failed_while_recording_is_no_launch() -> None:
    with Device(1) as device:
        x_TH, out_RH, program = floats(2, 3), floats(1, 3), Program(device)
        with program.recording():
            with pytest.raises(ValueError, match="rows_R"):
                gather_rows(device, x_TH, np.array([2], np.int32), out_RH)
            gather_rows(device, x_TH, np.array([1], np.int32), out_RH)
        assert len(program) == 1
        program.replay()
        assert np.array_equal(out_RH[0], x_TH[1])


def test_what_cannot_be_recorded_is_refused() -> None:
    with Device(1) as device:
        weight = pack(device, [floats(3, 4)], "float32")
        program = Program(device)
        with program.recording():
            for call in (lambda: pack(device, [floats(3, 4)], "float32"), lambda: unpack(device, weight)):
                with pytest.raises(RuntimeError, match="cannot be recorded"):
                    call()
        assert len(program) == 0


def test_a_device_records_one_program_and_a_program_once() -> None:
    with Device(1) as device, Device(1) as other:
        first, second, third = Program(device), Program(device), Program(other)
        with first.recording(), third.recording():
            with pytest.raises(RuntimeError, match="recording already"), second.recording():
                pass
            with pytest.raises(RuntimeError, match="still being recorded"):
                first.replay()
            rows, x_TH, out_RH = np.zeros(1, np.int32), floats(1, 1), floats(1, 1)
            gather_rows(device, x_TH, rows, out_RH)
        with pytest.raises(RuntimeError, match="recorded already"), first.recording():
            pass
        assert [len(first), len(second), len(third)] == [1, 0, 0]


def test_a_program_that_goes_away_ends_its_recording() -> None:
    with Device(1) as device:
        raw = Program(device)._cpu
        raw.begin()
        del raw
        gc.collect()
        with Program(device).recording():
            pass


def test_other_threads_are_not_recorded() -> None:
    with Device(1) as device:
        rows, x_TH, out_RH = np.zeros(1, np.int32), floats(1, 1), floats(1, 1)
        program = Program(device)
        with program.recording():
            other = threading.Thread(target=gather_rows, args=(device, x_TH, rows, out_RH))
            other.start()
            other.join()
        assert len(program) == 0
        assert out_RH == x_TH


def test_a_closed_device_replays_nothing() -> None:
    device = Device(2)
    tiny, program = Tiny(device, 1), Program(device)
    with program.recording():
        tiny.run()
    device.close()
    with pytest.raises(RuntimeError, match="this Device is closed"):
        program.replay()


def test_a_program_outlives_the_name_of_its_device() -> None:
    tiny = Tiny(Device(2), 1)
    program = Program(tiny.device)
    with program.recording():
        tiny.run()
    del tiny
    gc.collect()
    program.replay()
