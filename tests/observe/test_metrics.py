"""Metrics are fed by events and rendered when asked for; every one is documented."""

from __future__ import annotations

import pytest

from quire.events import CacheUse, RequestStats, StepStats
from quire.observe.metrics import Metrics


def values(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_a_step_sets_the_state_and_adds_to_the_totals() -> None:
    metrics = Metrics()
    cache = CacheUse(num_blocks=10, num_used=4, num_cached=1, num_free=5, block_size=16, num_wasted_slots=8)
    step = StepStats(3, 2, 100, 7, 32, 1, 0, 0.02, cache)
    metrics.on_step(step)
    metrics.on_step(step)
    shown = values(metrics)
    assert shown["quire_num_requests_running"] == 3
    assert shown["quire_num_requests_waiting"] == 2
    assert shown['quire_kv_blocks{state="cached"}'] == 1
    assert shown["quire_kv_cache_usage_perc"] == 0.4
    assert shown["quire_kv_cache_waste_share"] == 8 / 64
    assert shown["quire_prompt_tokens_total"] == 200
    assert shown["quire_generation_tokens_total"] == 14
    assert shown["quire_prefix_cache_hits_total"] == 64
    assert shown["quire_num_preemptions_total"] == 2
    assert shown["quire_step_seconds_count"] == 2


def test_waste_is_counted_by_cause_and_a_report_without_a_step_is_no_step() -> None:
    metrics = Metrics()
    metrics.on_step(StepStats(num_repeated_tokens=5, num_aborted_tokens=7, num_failed_tokens=9))
    shown = values(metrics)
    causes = [shown[f'quire_wasted_tokens_total{{cause="{cause}"}}'] for cause in ("preempted", "aborted", "failed")]
    assert causes == [5, 7, 9]
    assert shown["quire_step_seconds_count"] == 0


def test_the_prediction_error_counts_only_where_there_was_a_prediction() -> None:
    metrics = Metrics()
    metrics.on_step(StepStats(seconds=0.02))
    metrics.on_step(StepStats(seconds=0.02, predicted_s=0.023))
    shown = values(metrics)
    assert shown["quire_step_prediction_error_ratio_count"] == 1
    assert shown["quire_step_prediction_error_ratio_sum"] == pytest.approx(0.15)


def test_a_request_without_tokens_is_no_latency() -> None:
    metrics = Metrics()
    metrics.on_request(RequestStats("r", "/v1/completions", 400, 0, 0, 0, None, 0.01, "none"))
    metrics.on_request(RequestStats("r", "/v1/completions", 200, 5, 0, 9, 0.2, 1.5, "stop"))
    shown = values(metrics)
    assert shown["quire_e2e_request_latency_seconds_count"] == 1
    assert shown["quire_e2e_request_latency_seconds_sum"] == 1.5
    assert shown["quire_time_to_first_token_seconds_sum"] == 0.2
    assert shown['quire_http_requests_total{route="/v1/completions",status="400"}'] == 1


def test_two_servers_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.on_step(StepStats(num_output_tokens=5))
    assert values(other)["quire_generation_tokens_total"] == 0


def test_every_metric_is_documented_and_shown_under_that_name() -> None:
    metrics = Metrics()
    docs = metrics.docs()
    text = metrics.render().decode()
    assert len(docs) == text.count("# HELP") == len({each.name for each in docs})
    for each in docs:
        assert f"# HELP {each.name} {each.doc}\n# TYPE {each.name} {each.kind}" in text
        assert each.name.startswith("quire_")
        assert each.doc.endswith(".")
