"""The waste replay against sums made by hand. Knows: small traces. Does not know: the scheduler's insides."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.scheduling.cost import Coefficients, shape_of
from quire.sim.device import ModelledDevice
from quire.sim.kv_waste import replay
from quire.step import Step, Work

STEADY = ModelledDevice(Coefficients(fixed_s=1.0))


def trace(folder: Path, rows: list[tuple[float, int, int]]) -> Path:
    path = folder / "trace.csv"
    lines = [f"{at},{prompt},{output}" for at, prompt, output in rows]
    path.write_text("\n".join(["Timestamp,Request tokens,Response tokens", *lines, ""]), encoding="utf-8")
    return path


def test_one_request_by_hand(tmp_path: Path) -> None:
    report = replay(trace(tmp_path, [(0, 3, 3)]), block_size=4, num_blocks=4, device=STEADY)
    # Steps hold 3, 4 and 5 tokens in 4, 4 and 8 slots; the sixth token is drawn and never held.
    assert (report.num_steps, report.num_output_tokens, report.peak_used_blocks) == (3, 3, 2)
    assert report.waste_share == pytest.approx(4 / 16)
    assert report.contiguous_waste_share == pytest.approx(
        {2048: 1 - 12 / 6144, 4096: 1 - 12 / 12288, 8192: 1 - 12 / 24576, 6: 1 - 12 / 18}
    )


def test_steps_weigh_what_they_take(tmp_path: Path) -> None:
    device = ModelledDevice(Coefficients(token_s=1.0))
    report = replay(trace(tmp_path, [(0, 3, 2)]), block_size=4, num_blocks=4, device=device)
    assert report.busy_s == 4.0
    assert report.waste_share == pytest.approx((3 * 1 + 1 * 0) / 16)


def test_idle_time_counts_for_nothing(tmp_path: Path) -> None:
    report = replay(trace(tmp_path, [(0, 3, 3), (1000, 3, 3)]), block_size=4, num_blocks=4, device=STEADY)
    assert (report.busy_s, report.modelled_s, report.mean_running) == (6.0, 1003.0, 1.0)
    assert report.waste_share == pytest.approx(4 / 16)


def test_longer_requests_reserve_their_own_length(tmp_path: Path) -> None:
    report = replay(trace(tmp_path, [(0, 9000, 2)]), block_size=16, num_blocks=600, device=STEADY)
    held, steps = 2048 * 1 + 4096 + 6144 + 8192 + 9000 + 9001, 6
    for size in (2048, 4096, 8192, 9002):
        assert report.contiguous_waste_share[size] == pytest.approx(1 - held / (steps * 9002))


def test_speed_brings_them_together(tmp_path: Path) -> None:
    path = trace(tmp_path, [(0, 3, 10), (20, 3, 10)])
    assert replay(path, num_blocks=4, device=STEADY).mean_running == 1.0
    assert replay(path, num_blocks=4, device=STEADY, speed=10.0).mean_running > 1.5


def test_what_can_never_fit_is_counted(tmp_path: Path) -> None:
    report = replay(trace(tmp_path, [(0, 3, 2), (0, 100, 2)]), block_size=4, num_blocks=4, device=STEADY)
    assert (report.num_requests, report.num_refused, report.num_output_tokens) == (2, 1, 2)


def test_a_crowded_pool_foresees_its_growth_and_finishes(tmp_path: Path) -> None:
    rows = [(float(number), 20, 60) for number in range(30)]
    report = replay(trace(tmp_path, rows), block_size=4, num_blocks=40, device=STEADY)
    assert report.num_preempted == 0
    assert report.num_output_tokens == 30 * 60
    assert 0 < report.waste_share < 0.1


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    rows = [(0.0, 3, 1500)]
    replay(trace(tmp_path, rows), num_blocks=100, device=STEADY, tell=lambda *far: told.append(far))
    assert told == [(1, 1)]


def test_the_modelled_device() -> None:
    device = ModelledDevice(Coefficients(1.0, 0.1, 0.5, 0.25, 0.01, 0.001), knee_tokens=3)
    shape = shape_of(Step(1, (Work(1, [5, 6, 7], 0, []), Work(2, [5], 10, []))))
    assert device.seconds(shape) == pytest.approx(1.0 + 0.4 + 0.5 + 0.01 * (3 + 11) + 0.001 * 6)


def test_the_first_requests_of_a_real_conversation_trace(shared_data: Path) -> None:
    path = shared_data / "traces" / "azure" / "AzureLLMInferenceTrace_conv.csv"
    report = replay(path, num_requests=300)
    assert (report.num_requests, report.num_refused) == (300, 0)
    assert report.waste_share < 0.04
    shares = report.contiguous_waste_share
    assert 0.3 < shares[2048] < shares[4096] < shares[8192] < 1
    assert report == replay(path, num_requests=300)
