"""Knows: how long a step takes, learnt from steps that were timed. Does not know: a clock, or who is in a step.

    seconds = fixed + token * T + extra_token * max(0, T - knee) + draw * D + context * C + pair * P

with T tokens computed, D rows that draw, C key slots read, P query-key pairs of prompts, and no coefficient below zero.
The hinge is the roof: up to `knee_tokens` rows hide behind the reading of the weights, beyond it each costs arithmetic.
What slows every step alike, such as a neighbour on the same cores, rescales all that is remembered within some twenty
steps; what changes the price of one feature is followed by the fit.

Fitted by least squares of relative errors under forgetting. What is forgotten lies in the direction of the new sample
only (Cao and Schwartz 2000, "A directional forgetting algorithm based on the decomposition of the information matrix"):
an hour of decoding does not wash away what a long prompt costs. A sample that is far off counts for less (Huber 1964).
Memory and work per sample are constant: six coefficients, a 6 x 6 matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from quire.step import Step, Work

KNEE_TOKENS = 8  # rows that a CPU computes while it reads the weights
MEMORY_STEPS = 100  # about so many samples of one kind are remembered
TYPICAL = (1.0, 64.0, 512.0, 32.0, 16384.0, 2.0**18)  # sizes of the six features: how an unexplained second is split
PRIOR_WEIGHT = 1e-4  # of one sample
HUBER_WIDTH = 3.0  # mean errors beyond which a sample loses weight
SPREAD_STEP = 0.05
DRIFT_STEP = 0.08
DRIFT_CLIP = 0.7  # of a step's logarithm: one stalled step is not a drift
DRIFT_TOLERATED = 0.15  # left to the fit
SHORTEST_S, LONGEST_S = 1e-7, 1e5  # no step is timed outside
QUANTILE_STEP = 0.05
LATE_SHARE, MOST_LATE = 0.01, 1.5  # steps that may take longer than foretold; by how much that is believed
FIRST_LATE = 1.2  # until it is known; learnt from 1, the first minute was late in 1.7 % of its steps
FIRST_SAMPLES = 16
FIRST_SWEEPS = 24
SWEEPS = 2
CALIBRATION_SWEEPS = 400

Six = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a step's duration depends on: tokens computed, rows drawn, key slots read, query-key pairs of prompts."""

    num_tokens: int
    num_draws: int
    num_context_tokens: int
    num_pairs: int = 0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per unit of each feature; none is negative."""

    fixed_s: float = 0.0
    token_s: float = 0.0
    extra_token_s: float = 0.0
    draw_s: float = 0.0
    context_token_s: float = 0.0
    pair_s: float = 0.0


def shape_of(step: Step) -> StepShape:
    """The features of `step`."""
    return shape_of_works(step.works)


def shape_of_works(works: SequenceOf[Work]) -> StepShape:
    """The features of a step of these works."""
    num_tokens = num_pairs = 0
    for work in works:
        count = len(work.tokens)
        num_tokens += count
        if count > 1:
            num_pairs += num_chunk_pairs(work.start, count)
    num_draws = sum([work.draw is not None for work in works])
    return StepShape(num_tokens, num_draws, sum([work.start for work in works]) + num_tokens, num_pairs)


def num_chunk_pairs(start: int, count: int) -> int:
    """Query-key pairs of `count` tokens after `start` others, each reading itself and all before it."""
    return count * start + count * (count + 1) // 2


class CostModel:
    """`observe` timed steps, `predict` others; `error_p90` says how far off it has been.

    `late` is the 99th percentile of actual to predicted time of steps that read prompts while others drew, at least 1.
    """

    def __init__(self, knee_tokens: int = KNEE_TOKENS, memory_steps: int = MEMORY_STEPS) -> None:
        self.num_samples = 0
        self.error_mean = self.error_p90 = 0.0
        self.late = FIRST_LATE
        self._knee = knee_tokens
        self._forgetting = 1.0 / memory_steps
        self._spread = 0.2
        self._drift = 0.0
        self._theta = [0.0] * 6
        self._information = [[0.0] * 6 for _ in range(6)]
        self._target = [0.0] * 6

    @classmethod
    def calibrated(cls, samples: Iterable[tuple[StepShape, float]], knee_tokens: int = KNEE_TOKENS) -> CostModel:
        """A model of a handful of timed steps, all remembered alike; it goes on learning from there."""
        model = cls(knee_tokens)
        model.calibrate(samples)
        return model

    def calibrate(self, samples: Iterable[tuple[StepShape, float]]) -> None:
        """Learn a handful of timed steps, all remembered alike."""
        for shape, seconds in samples:
            if _is_duration(seconds):
                self._start(seconds)
                self._add(self._features(shape), seconds, 1.0 / seconds**2)
                self.num_samples += 1
        self._descend(CALIBRATION_SWEEPS)

    @property
    def coefficients(self) -> Coefficients:
        """What is believed now."""
        return Coefficients(*self._theta)

    def predict(self, shape: StepShape) -> float | None:
        """Seconds that a step of this shape will take; None before the first sample."""
        if not self.num_samples:
            return None
        return self.seconds(shape.num_tokens, shape.num_draws, shape.num_context_tokens, shape.num_pairs)

    def seconds(self, num_tokens: int, num_draws: int, num_context_tokens: int, num_pairs: int) -> float:
        """The same of a shape that is looked at once, among others; 0 before the first sample."""
        fixed, token, extra, draw, context, pair = self._theta
        seconds = fixed + token * num_tokens + draw * num_draws + context * num_context_tokens
        return seconds + pair * num_pairs + (extra * (num_tokens - self._knee) if num_tokens > self._knee else 0.0)

    def observe(self, shape: StepShape, seconds: float) -> float | None:
        """Learn that a step of this shape took `seconds`; what was predicted for it. No duration teaches nothing."""
        predicted = self.predict(shape)
        if not _is_duration(seconds):
            return predicted
        self._start(seconds)
        weight = 1.0 if predicted is None else self._judge(predicted, seconds)
        if predicted and shape.num_pairs and shape.num_draws and self.num_samples > FIRST_SAMPLES:
            rise = 1.0 - LATE_SHARE if seconds > self.late * predicted else -LATE_SHARE
            self.late = min(MOST_LATE, max(1.0, self.late * math.exp(QUANTILE_STEP * rise)))
        scale = seconds if predicted is None else max(seconds, predicted)
        features = self._features(shape)
        self._forget(features, self._forgetting * weight)
        self._add(features, seconds, weight / scale**2)
        self.num_samples += 1
        self._descend(FIRST_SWEEPS if self.num_samples <= FIRST_SAMPLES else SWEEPS)
        return predicted

    def _features(self, shape: StepShape) -> Six:
        count = float(shape.num_tokens)
        extra = max(0.0, count - self._knee)
        return (1.0, count, extra, float(shape.num_draws), float(shape.num_context_tokens), float(shape.num_pairs))

    def _start(self, seconds: float) -> None:
        if not self.num_samples:
            for j, typical in enumerate(TYPICAL):
                self._information[j][j] = PRIOR_WEIGHT * (typical / seconds) ** 2

    def _judge(self, predicted: float, seconds: float) -> float:
        """Keep book of the error, and say how much the sample is to count: 1, or less if it is far off."""
        error = abs(seconds - predicted) / seconds
        self.error_mean += SPREAD_STEP * (error - self.error_mean)
        rise = 0.9 if error > self.error_p90 else -0.1
        self.error_p90 = max(1e-3, self.error_p90 * math.exp(QUANTILE_STEP * rise))
        bounded = abs(seconds - predicted) / max(seconds, predicted)
        width = HUBER_WIDTH * self._spread
        self._spread += SPREAD_STEP * (min(bounded, 2.0 * width) - self._spread)
        self._spread = max(self._spread, 1e-3)
        self._follow(seconds / max(predicted, SHORTEST_S))
        return 1.0 if bounded <= width else width / bounded

    def _follow(self, ratio: float) -> None:
        """Restate all that is remembered at the pace of now, once steps have been off by one factor for a while."""
        step = min(DRIFT_CLIP, max(-DRIFT_CLIP, math.log(ratio)))
        self._drift += DRIFT_STEP * (step - self._drift)
        if abs(self._drift) > DRIFT_TOLERATED:
            factor = math.exp(self._drift)
            self._theta = [factor * value for value in self._theta]
            self._target = [factor * value for value in self._target]
            self._drift = 0.0

    def _forget(self, features: Six, share: float) -> None:
        """Take `share` of what is known in the direction of `features` away: A -= share A x x'A / x'Ax."""
        matrix, target = self._information, self._target
        product = [sum([a * x for a, x in zip(row, features, strict=True)]) for row in matrix]
        known = sum([x * p for x, p in zip(features, product, strict=True)])
        told = sum([x * b for x, b in zip(features, target, strict=True)])
        for j in range(6):
            part = share * product[j] / known
            target[j] -= part * told
            row = matrix[j]
            for k in range(6):
                row[k] -= part * product[k]

    def _add(self, features: Six, seconds: float, weight: float) -> None:
        for j, feature in enumerate(features):
            part = weight * feature
            if part:
                self._target[j] += part * seconds
                row = self._information[j]
                for k in range(6):
                    row[k] += part * features[k]

    def _descend(self, sweeps: int) -> None:
        """Minimise over coefficients of zero or more, one at a time, from where they are."""
        theta, rows = self._theta, list(enumerate(zip(self._information, self._target, strict=True)))
        for _ in range(sweeps):
            for j, (row, target) in rows:
                own = row[j]
                if own > 0.0:
                    t0, t1, t2, t3, t4, t5 = theta
                    rest = row[0] * t0 + row[1] * t1 + row[2] * t2 + row[3] * t3 + row[4] * t4 + row[5] * t5
                    theta[j] = max(0.0, theta[j] + (target - rest) / own)


def _is_duration(seconds: float) -> bool:
    return SHORTEST_S <= seconds <= LONGEST_S
