"""Devices: which instruction set, how many threads. Knows: the pool through the ops. Does not know: its insides."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from quire.errors import InvalidSetting
from quire.ops import device as device_module
from quire.ops.device import ISAS, Device, available_isas, choose_isa
from quire.ops.gather import gather_rows
from quire.ops.linear import linear, pack


def test_auto_takes_the_widest_that_the_machine_has() -> None:
    assert choose_isa("auto", {})[0] == available_isas()[-1]


@pytest.mark.parametrize("isa", available_isas())
def test_the_variable_forces_one(isa: str) -> None:
    with Device(1, environ={"QUIRE_CPU_ISA": isa}) as device:
        assert (device.isa, device.cpu.isa) == (isa, isa)
        assert all(isa in how or "portable" in how for _, how, _ in device.explain())
        assert device.explain()[0][2] == "asked for by QUIRE_CPU_ISA"


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="got QUIRE_CPU_ISA=sse9; allowed: generic, avx2, avx512, amx"):
        Device(1, environ={"QUIRE_CPU_ISA": "sse9"})


def test_what_the_machine_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lesser:
        """The extension module as a machine without AVX512_BF16 shows it."""

        @staticmethod
        def missing_for(isa: str) -> str:
            return "AVX512_BF16" if isa == "avx512" else ""

        @staticmethod
        def best_isa() -> str:
            return "avx2"

    monkeypatch.setattr(device_module, "_cpu", Lesser)
    with pytest.raises(InvalidSetting, match=r"the avx512 kernels.*lacks AVX512_BF16; allowed: generic, avx2"):
        choose_isa("auto", {"QUIRE_CPU_ISA": "avx512"})
    isa, why = choose_isa("auto", {})
    assert isa == "avx2"
    assert "avx512 needs AVX512_BF16" in why


@pytest.mark.parametrize("isa", ISAS)
def test_an_instruction_set_either_runs_or_is_refused(isa: str) -> None:
    if isa in available_isas():
        with Device(1, isa) as device:
            assert np.array_equal(rows_in_order(device, 3), [0, 1, 2])
    else:
        with pytest.raises(InvalidSetting, match=f"cannot run the {isa} kernels"):
            Device(1, isa)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_a_number_of_threads_out_of_range_is_refused(threads: int) -> None:
    with pytest.raises(InvalidSetting, match="number of threads is out of range"):
        Device(threads)


def rows_in_order(device: Device, num_rows: int) -> Any:
    x_TH = np.arange(num_rows, dtype=np.float32)[:, None]
    out_RH = np.full_like(x_TH, -1)
    gather_rows(device, x_TH, np.arange(num_rows, dtype=np.int32), out_RH)
    return out_RH[:, 0]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_chunk_runs_with_more_threads_than_cores(threads: int) -> None:
    with Device(threads) as device:
        for num_rows in [0, 1, 2, 3, threads, threads + 1, 1000] * 20:
            assert np.array_equal(rows_in_order(device, num_rows), np.arange(num_rows))


def test_a_sleeping_pool_wakes() -> None:
    with Device(3) as device:
        for _ in range(10):
            threading.Event().wait(0.002)  # far longer than the workers spin
            assert np.array_equal(rows_in_order(device, 100), np.arange(100))


def test_several_threads_may_call_one_device() -> None:
    x_TK = np.random.default_rng(0).standard_normal((9, 64), dtype=np.float32)
    wrong: list[int] = []
    with Device(2) as device:
        weight = pack(device, [np.eye(64, dtype=np.float32)], "float32")

        def call(scale: int) -> None:
            for _ in range(50):
                out_TN = np.empty((9, 64), dtype=np.float32)
                linear(device, x_TK * scale, weight, out_TN)
                if not np.array_equal(out_TN, x_TK * scale):
                    wrong.append(scale)

        callers = [threading.Thread(target=call, args=(scale,)) for scale in (1, 2, 4, 8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong


def test_a_closed_device_refuses_work() -> None:
    device = Device(2)
    device.close()
    device.close()
    with pytest.raises(RuntimeError, match="this Device is closed"):
        rows_in_order(device, 3)


def test_two_devices_are_independent() -> None:
    first, second = Device(2), Device(3)
    first.close()
    assert np.array_equal(rows_in_order(second, 10), np.arange(10))
    second.close()


@pytest.fixture
def on_one_core() -> Iterator[int]:
    """The test's thread bound to one core; threads that it makes inherit that."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no affinity masks")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield min(cores)
    os.sched_setaffinity(0, cores)


def threads_now() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


def test_workers_keep_to_the_cores_of_the_process(on_one_core: int) -> None:
    before = threads_now()
    with Device(3) as device:
        for _ in range(50):
            assert np.array_equal(rows_in_order(device, 100), np.arange(100))
        workers = threads_now() - before
        assert len(workers) == 2
        assert all(os.sched_getaffinity(worker) == {on_one_core} for worker in workers)


def test_threads_without_cores_of_their_own_finish(on_one_core: int) -> None:
    """As when the system takes cores away: who runs does the work, and waits for nobody who has not begun."""
    x_TK, weight_NK = np.random.default_rng(0).standard_normal((2, 70, 130), dtype=np.float32)
    with Device(1) as one, Device(6) as many:
        weight = pack(one, [weight_NK], "bfloat16")
        expected_TN, out_TN = np.empty((70, 70), np.float32), np.empty((70, 70), np.float32)
        linear(one, x_TK, weight, expected_TN)
        for _ in range(100):
            linear(many, x_TK, weight, out_TN)
            assert np.array_equal(out_TN, expected_TN)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity masks")
def test_workers_only_ever_leave_cores_of_the_mask() -> None:
    cores, before = os.sched_getaffinity(0), threads_now()
    with Device(len(cores)) as device:
        for _ in range(200):
            rows_in_order(device, 64)
        assert all(os.sched_getaffinity(worker) <= cores for worker in threads_now() - before)
        assert all(os.sched_getaffinity(worker) for worker in threads_now() - before)
    assert os.sched_getaffinity(0) == cores


def test_an_idle_pool_burns_nothing() -> None:
    with Device(3) as device:
        rows_in_order(device, 100)
        threading.Event().wait(0.01)  # the workers go to sleep
        before = time.process_time()
        threading.Event().wait(0.08)
        assert time.process_time() - before < 0.04
