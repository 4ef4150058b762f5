"""Prometheus metrics: counters and histograms fed by events, rendered when they are scraped.

Names are the field's (after `quire_`); times are in seconds. Every metric's doc line is what /metrics and the
documentation print.

Knows: `StepStats`, `RequestStats`, `EngineLoss`. Does not know: the engine, HTTP, clocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from quire.events import EngineLoss, Examined, RequestStats, StepStats

Family = TypeVar("Family", bound=MetricWrapperBase)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
TOKEN_GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
WHOLE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LEAST_S = 1e-6
ERROR_RATIO = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One metric as the documentation shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._families: list[MetricWrapperBase] = []
        self._make_state()
        self._make_totals()
        self._make_faults()
        self._make_times()

    def on_step(self, stats: StepStats) -> None:
        """Take one step's figures in; given to `EngineClient.on_stats`."""
        self._running.set(stats.num_running)
        self._waiting.set(stats.num_waiting)
        self._flex_running.set(stats.num_flex_running)
        self._flex_waiting.set(stats.num_flex_waiting)
        cache = stats.cache
        self._used.set(cache.num_used)
        self._cached.set(cache.num_cached)
        self._free.set(cache.num_free)
        self._usage.set(cache.num_used / cache.num_blocks if cache.num_blocks else 0.0)
        self._waste.set(cache.waste_share)
        self._prompt_tokens.inc(stats.num_prompt_tokens)
        self._output_tokens.inc(stats.num_output_tokens)
        self._hit_tokens.inc(stats.num_cached_tokens)
        self._preemptions.inc(stats.num_preempted)
        self._repeated.inc(stats.num_repeated_tokens)
        self._aborted.inc(stats.num_aborted_tokens)
        self._failed.inc(stats.num_failed_tokens)
        self._yielded.inc(stats.num_yielded_tokens)
        self._expired.inc(stats.num_expired_tokens)
        for fault in stats.faults:
            self._faults.labels(fault).inc()
        self._stuck.inc(stats.num_repeating)
        for predicted_s, actual_s in stats.first_tokens:
            self._first_token_error.observe(abs(predicted_s - actual_s) / max(actual_s, LEAST_S))
        if stats.seconds > 0:  # else no step: somebody left between two
            self._step_s.observe(stats.seconds)
        if stats.predicted_s is not None and stats.seconds > 0:
            self._step_error.observe(abs(stats.predicted_s - stats.seconds) / stats.seconds)
        self._step_tokens.inc(stats.num_prompt_tokens + stats.num_output_tokens)

    def on_request(self, stats: RequestStats) -> None:
        """Take one finished HTTP request in."""
        self._requests.labels(stats.route, str(stats.status)).inc()
        if stats.refused:
            self._refused.labels(stats.refused).inc()
        if stats.queue_to_first_token_s is not None:
            self._first_token_s.observe(stats.queue_to_first_token_s)
        if stats.num_output_tokens:
            self._finished.labels(stats.finish).inc()
            self._whole_s.observe(stats.total_s)

    def on_examined(self, examined: Examined) -> None:
        """Take in what an engine found as it looked at itself; given to `EngineClient.on_examined`."""
        self._period_s.labels(examined.check, "idle").set(examined.idle_s)
        self._period_s.labels(examined.check, "busy").set(examined.busy_s)
        if examined.outcome == "begun":
            self._ailing.set(0)
        else:
            self._checks.labels(examined.check, examined.outcome).inc()
        if examined.ailment:
            self._ailing.set(1)

    def on_loss(self, loss: EngineLoss) -> None:
        """Take in that an engine was lost, given up, or replaced; given to `EngineClient.on_loss`."""
        if loss.seconds is not None:
            self._recovery_s.observe(loss.seconds)
            self._replayed.inc(loss.num_replayed)
        elif not loss.is_final:
            self._losses.labels(loss.cause).inc()
            self._killers.inc(loss.culprit is not None)

    def on_token_gap(self, seconds: float) -> None:
        """Time between two tokens of one sample, as the server saw them."""
        self._token_gap_s.observe(seconds)

    def on_open(self, num_open: Mapping[str, int]) -> None:
        """Take in what is open now, by kind; asked for whenever the metrics are read."""
        for kind, number in num_open.items():
            self._open.labels(kind).set(number)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(_Shown(self._registry))

    def docs(self) -> list[MetricDoc]:
        """Every metric with its kind, labels and meaning, in the order in which they are shown."""
        return [_doc(family) for family in self._families]

    def _make_state(self) -> None:
        self._running = self._gauge("num_requests_running", "Requests being computed after the last step.")
        self._waiting = self._gauge("num_requests_waiting", "Requests waiting for a place after the last step.")
        flex = self._gauge(
            "flex_requests",
            "Requests of service tier flex after the last step, by state: running or waiting. They are counted among "
            "all running and waiting requests too.",
            ("state",),
        )
        self._flex_running, self._flex_waiting = (flex.labels(state) for state in ("running", "waiting"))
        blocks = self._gauge(
            "kv_blocks",
            "Blocks of the KV cache by state: used by a request, cached (free, content kept for reuse), or free.",
            ("state",),
        )
        self._used, self._cached, self._free = (blocks.labels(state) for state in ("used", "cached", "free"))
        self._usage = self._gauge("kv_cache_usage_perc", "Share of the KV cache's blocks that requests use, 0 to 1.")
        self._waste = self._gauge(
            "kv_cache_waste_share", "Share of the token slots in used blocks that hold no token, 0 to 1."
        )

        self._open = self._gauge(
            "front_open",
            "What the front process has open as this is read, by kind: requests inside (requests), answers of the "
            "engine that somebody waits for (streams), asyncio tasks (tasks), file descriptors (descriptors).",
            ("kind",),
        )

    def _make_totals(self) -> None:
        self._prompt_tokens = self._counter("prompt_tokens_total", "Prompt tokens computed.")
        self._output_tokens = self._counter("generation_tokens_total", "Tokens generated.")
        self._hit_tokens = self._counter(
            "prefix_cache_hits_total", "Prompt tokens that came from the prefix cache and were not computed."
        )
        self._preemptions = self._counter("num_preemptions_total", "Sequences put back to make room for others.")
        wasted = self._counter(
            "wasted_tokens_total",
            "Tokens computed in vain: again after a preemption (preempted) or after a flex request made way (yielded), "
            "for samples whose client left before the end (aborted), whose computation went wrong (failed), or whose "
            "deadline passed while they waited again (expired).",
            ("cause",),
        )
        self._repeated, self._yielded, self._aborted, self._failed, self._expired = (
            wasted.labels(cause) for cause in ("preempted", "yielded", "aborted", "failed", "expired")
        )
        self._refused = self._counter(
            "requests_refused_total",
            "Requests answered with 429: too many waiting (requests, tokens), too long a predicted wait (wait), a "
            "deadline that the prediction cannot make (deadline_unreachable) or that passed in the queue "
            "(deadline_exceeded).",
            ("cause",),
        )
        self._step_tokens = self._counter("step_tokens_total", "Tokens of all steps, prompt and generated together.")
        self._requests = self._counter("http_requests_total", "HTTP requests by route and status.", ("route", "status"))
        self._finished = self._counter(
            "request_success_total", "Requests that generated tokens, by why they ended.", ("finished_reason",)
        )
        self._losses = self._counter(
            "engine_losses_total",
            "Engine processes that were lost, by cause: exited (a death of their own), killed (by a signal from "
            "outside), or stalled (no progress; ended here).",
            ("cause",),
        )
        self._replayed = self._counter(
            "requests_replayed_total", "Requests that went on in another engine after theirs was lost."
        )
        self._killers = self._counter(
            "requests_killed_engine_total", "Requests that were ended because engines die of them."
        )

    def _make_faults(self) -> None:
        self._faults = self._counter(
            "faults_total",
            "Requests ended because something went wrong that nobody asked for: logits, keys or values that are "
            "infinite or NaN (not_finite), a token outside the vocabulary (id_out_of_range), a step that raises for "
            "them alone (step_failed).",
            ("fault",),
        )
        self._checks = self._counter(
            "integrity_checks_total",
            "Looks that the engine took at itself, by check (canary: a fixed prompt; weights: a sum of their bytes) "
            "and outcome (ok, differs).",
            ("check", "outcome"),
        )
        self._period_s = self._gauge(
            "integrity_period_seconds",
            "Longest time until the engine has looked at all of itself again, by check, while idle and while busy.",
            ("check", "load"),
        )
        self._ailing = self._gauge(
            "engine_ailing", "1 while the engine's answers are not to be trusted: a look at itself differs every time."
        )
        self._stuck = self._counter(
            "stuck_answers_total",
            "Answers of which 64 tokens in a row were one pattern of at most 8 tokens. They go on, unless the request "
            "asked for repetition_detection.",
        )

    def _make_times(self) -> None:
        self._recovery_s = self._histogram(
            "engine_recovery_seconds", "From an engine's loss until its requests went on in another one.", WHOLE_S
        )
        self._first_token_s = self._histogram(
            "time_to_first_token_seconds", "From the request's arrival to its first token.", FIRST_TOKEN_S
        )
        self._token_gap_s = self._histogram(
            "inter_token_latency_seconds", "Between two consecutive tokens of a sample.", TOKEN_GAP_S
        )
        self._whole_s = self._histogram(
            "e2e_request_latency_seconds", "From the request's arrival to the end of its answer.", WHOLE_S
        )
        self._step_s = self._histogram("step_seconds", "Duration of one step of the engine.", STEP_S)
        self._step_error = self._histogram(
            "step_prediction_error_ratio",
            "How far a step's predicted duration was from the measured one, as a share of the measured one.",
            ERROR_RATIO,
        )
        self._first_token_error = self._histogram(
            "time_to_first_token_prediction_error_ratio",
            "How far the time to a first token that was predicted as the request came was from the measured one, as a "
            "share of the measured one.",
            ERROR_RATIO,
        )

    def _gauge(self, name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
        return self._keep(Gauge(f"quire_{name}", doc, labels, registry=self._registry))

    def _counter(self, name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
        return self._keep(Counter(f"quire_{name}", doc, labels, registry=self._registry))

    def _histogram(self, name: str, doc: str, buckets: Sequence[float]) -> Histogram:
        return self._keep(Histogram(f"quire_{name}", doc, registry=self._registry, buckets=buckets))

    def _keep(self, family: Family) -> Family:
        self._families.append(family)
        return family


class _Shown(Collector):
    """The registry without `_created` series: they double the lines and say only when the server started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """All metrics, thinned out."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _doc(family: MetricWrapperBase) -> MetricDoc:
    metric = next(iter(family.describe()))
    name = metric.name + ("_total" if metric.type == "counter" else "")
    return MetricDoc(name, metric.type, tuple(family._labelnames), metric.documentation)
