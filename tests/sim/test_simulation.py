"""Traces through the real scheduler over a modelled device. Knows: small traces by hand. Does not know: how."""

from __future__ import annotations

from math import inf
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.plan import ITL_FACTOR, ITL_FLOOR_S
from quire.scheduling.cost import Coefficients
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.sim.asked import target_of
from quire.sim.device import ModelledDevice
from quire.sim.figures import Seen, Spread, jain_index
from quire.sim.replay import Served, SimReport, Simulation
from quire.sim.trace import HASHED_TOKENS, Arrival, read_trace

STEADY = ModelledDevice(Coefficients(fixed_s=1.0))


def run(arrivals: list[Arrival], **changed: object) -> SimReport:
    asked = {"limits": SchedulerLimits(8, 64, 4096, 4), "num_blocks": 1000, "device": STEADY, **changed}
    simulation = Simulation(arrivals, Served(**asked))  # type: ignore[arg-type]
    while simulation.advance():
        pass
    return simulation.report()


def test_two_requests_by_hand() -> None:
    report = run([Arrival(0.0, 3, 3), Arrival(0.5, 3, 2)])
    # Steps end at 1, 2, 3: the first draws in all of them, the second, which came at 0.5, in two.
    assert (report.num_requests, report.num_steps, report.modelled_s) == (2, 3, 3.0)
    assert report.output_tokens_per_s == pytest.approx(5 / 3)
    assert report.prompt_tokens_per_s == pytest.approx(6 / 3)
    assert (report.ttft_s.mean, report.ttft_s.max) == (1.25, 1.5)
    assert (report.itl_s.count, report.itl_s.mean) == (3, 1.0)
    assert (report.e2e_s.mean, report.e2e_s.max) == (2.75, 3.0)
    assert report.goodput_rps == 0.0
    assert report.mean_running == pytest.approx((1 + 2 + 0) / 3)


def test_goodput_counts_those_who_met_both_goals() -> None:
    report = run([Arrival(0.0, 3, 3), Arrival(0.5, 3, 2)], ttft_goal_s=1.2, itl_goal_s=1.0)
    assert report.goodput_rps == pytest.approx(1 / 3)
    assert report.requests_per_s == pytest.approx(2 / 3)


def test_idle_time_is_skipped_and_speed_brings_arrivals_together() -> None:
    arrivals = [Arrival(0.0, 3, 3), Arrival(100.0, 3, 3)]
    assert (run(arrivals).modelled_s, run(arrivals).busy_s) == (103.0, 6.0)
    assert run(arrivals, speed=100.0).modelled_s == 4.0


def test_what_can_never_fit_is_counted() -> None:
    report = run([Arrival(0.0, 5000, 3), Arrival(0.0, 3, 3)])
    assert (report.num_requests, report.num_refused, report.ttft_s.count) == (2, 1, 1)


def test_blocks_that_the_trace_shares_are_not_computed_again() -> None:
    first = Arrival(0.0, 3 * HASHED_TOKENS, 2, (1, 2, 3))
    second = Arrival(100.0, 3 * HASHED_TOKENS, 2, (1, 2, 9))
    assert run([first, second]).num_cached_tokens == 2 * HASHED_TOKENS
    assert run([first, second], prefix_cache=False).num_cached_tokens == 0
    plain = [Arrival(0.0, 1024, 2), Arrival(100.0, 1024, 2)]
    assert run(plain).num_cached_tokens == 0


def test_the_scheduler_is_not_told_how_long_answers_will_be() -> None:
    random = Random(1)
    arrivals = [Arrival(number / 4, 20, random.randint(5, 200)) for number in range(300)]
    report = run(arrivals, num_blocks=250, limits=SchedulerLimits(32, 256, 1000, 4))
    assert report.peak_used_share > 0.9
    assert report.repeated_share < 0.05, "and yet it computes little in vain"
    assert report.output_tokens_per_s * report.modelled_s == pytest.approx(sum(one.num_output for one in arrivals))


def test_a_target_bounds_the_time_between_tokens() -> None:
    device = ModelledDevice(Coefficients(fixed_s=0.02, token_s=0.001))
    arrivals = [Arrival(0.0, 20, 400), *(Arrival(0.5 + number, 600, 2) for number in range(6))]
    limits = SchedulerLimits(16, 2048, 2000, 16)
    free = run(arrivals, device=device, limits=limits)
    bound = run(arrivals, device=device, limits=limits, itl_target=ItlTarget(0.1))
    assert free.itl_s.max > 0.5
    assert bound.itl_s.max < 0.11
    assert bound.prediction_error_p90 < 0.05


def test_the_target_is_what_the_plan_makes_of_it() -> None:
    assert target_of(None) == ItlTarget(ITL_FLOOR_S, ITL_FACTOR)
    assert target_of(0.0) == ItlTarget(inf)
    assert target_of(0.3) == ItlTarget(0.3)


def test_samples_cover_the_whole_time() -> None:
    report = run([Arrival(number / 2, 3, 3) for number in range(400)])
    assert 100 <= len(report.samples) <= 250
    assert report.samples[-1].at_s > 0.95 * report.modelled_s


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200))
def test_percentiles_are_right_within_half_a_per_cent(values: list[float]) -> None:
    seen = Seen()
    for value in values:
        seen.add(value)
    spread, ordered = seen.spread(), sorted(values)
    for share, found in ((0.5, spread.p50), (0.9, spread.p90), (0.99, spread.p99)):
        exact = ordered[next(i for i in range(len(ordered)) if i + 1 >= share * len(ordered))]
        assert found == pytest.approx(exact, rel=0.006)
    assert spread.max == ordered[-1]


def test_nothing_seen_and_fairness() -> None:
    assert Seen().spread() == Spread()
    assert jain_index([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain_index([1.0, 0.0, 0.0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("policy", ["fcfs", "fair", "priority"])
def test_the_first_requests_of_a_real_conversation_trace(shared_data: Path, policy: str) -> None:
    arrivals = read_trace(shared_data / "traces" / "azure" / "AzureLLMInferenceTrace_conv.csv", 150)
    asked = {"limits": SchedulerLimits(256, 2048, 16384, 16), "device": ModelledDevice(), "num_tenants": 4}
    report = run(arrivals, policy=policy, **asked)
    assert (report.ttft_s.count, report.num_refused) == (150, 0)
    assert report.kv_waste_share < 0.04
    assert report == run(arrivals, policy=policy, **asked), "the same again"


def test_a_real_trace_with_shared_blocks(shared_data: Path) -> None:
    arrivals = read_trace(shared_data / "traces" / "mooncake" / "conversation_trace.jsonl", 12)
    limits = SchedulerLimits(64, 8192, 131072, 64)
    report = run(arrivals, limits=limits, num_blocks=20000, device=ModelledDevice())
    assert report.num_cached_tokens >= 5 * HASHED_TOKENS, "they all begin alike"
