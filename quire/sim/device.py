"""Knows: a law of how long a step takes, and how unsteadily a machine keeps it. Does not know: a real device."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from quire.scheduling.cost import KNEE_TOKENS, Coefficients, StepShape

ACCELERATOR = Coefficients(fixed_s=20e-3, token_s=60e-6, context_token_s=40e-9)
LEAST_SAMPLES = 16  # of one size of step
MOST_RATIOS = 200


@dataclass(frozen=True, slots=True)
class Unsteady:
    """Steps of at most `most_tokens` that read prompts, or only draw: what they took as shares of the law's seconds,
    ascending, each as likely."""

    reads: bool
    most_tokens: int
    ratios: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean share."""
        return sum(self.ratios) / len(self.ratios)


@dataclass(frozen=True, slots=True)
class ModelledDevice:
    """Seconds of a step by the law of the step-time model: fixed, per token, per token beyond the knee, and so on.

    A machine that was measured is `unsteady` too, by kind and size of step: the last of a kind stands for all larger.

    The defaults stand for one accelerator that reads an 8-billion-parameter model's weights in 20 ms and computes about
    16,000 prompt tokens a second. Under the 2023 Azure conversation trace (5.5 requests/s, 1155 tokens in, 211 out) it
    is busy nearly all the time, with some forty requests running, and its queue does not grow.
    """

    law: Coefficients = ACCELERATOR
    knee_tokens: int = KNEE_TOKENS
    unsteady: tuple[Unsteady, ...] = ()

    def seconds(self, shape: StepShape) -> float:
        """How long a step of this shape takes by the law."""
        law, count = self.law, shape.num_tokens
        seconds = law.fixed_s + law.token_s * count + law.extra_token_s * max(0, count - self.knee_tokens)
        seconds += law.draw_s * shape.num_draws + law.context_token_s * shape.num_context_tokens
        return seconds + law.pair_s * shape.num_pairs

    def mean_s(self, shape: StepShape) -> float:
        """How long such a step takes on average."""
        return self.seconds(shape) * (self._of_kind(shape).mean if self.unsteady else 1.0)

    def drawn_s(self, shape: StepShape, chance: float) -> float:
        """How long such a step took this time: `chance` in [0, 1) says how lucky it was."""
        if not self.unsteady:
            return self.seconds(shape)
        ratios = self._of_kind(shape).ratios
        return self.seconds(shape) * ratios[int(chance * len(ratios))]

    def _of_kind(self, shape: StepShape) -> Unsteady:
        place = bisect_left(self.unsteady, (shape.num_pairs > 0, shape.num_tokens), key=_kind)
        if place and (place == len(self.unsteady) or self.unsteady[place].reads != (shape.num_pairs > 0)):
            place -= 1
        return self.unsteady[place]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a machine's steps slowed and quickened: for `every_s` each, times what they would take."""

    every_s: float
    factors: tuple[float, ...]

    def at(self, now_s: float) -> float:
        """The factor of then; the last one goes on."""
        return self.factors[min(int(now_s / self.every_s), len(self.factors) - 1)]


def unsteady_of(device: ModelledDevice, timed: Sequence[tuple[StepShape, float]]) -> tuple[Unsteady, ...]:
    """How timed steps kept `device`'s law: sizes in powers of two, each with `LEAST_SAMPLES` or joined to the next."""
    found: list[Unsteady] = []
    for reads in (False, True):
        by_size: dict[int, list[float]] = {}
        for shape, seconds in timed:
            if (shape.num_pairs > 0) == reads:
                by_size.setdefault((shape.num_tokens - 1).bit_length(), []).append(seconds / device.seconds(shape))
        ratios: list[float] = []
        for bits, more in sorted(by_size.items()):
            ratios += more
            if len(ratios) >= LEAST_SAMPLES or bits == max(by_size):
                found.append(Unsteady(reads, 2**bits, _evenly(ratios)))
                ratios = []
    return tuple(found)


def _kind(each: Unsteady) -> tuple[bool, int]:
    return each.reads, each.most_tokens


def _evenly(values: list[float]) -> tuple[float, ...]:
    """At most `MOST_RATIOS` values with the same mean: those of equal parts of the ascending list."""
    ordered, count = sorted(values), min(MOST_RATIOS, len(values))
    edges = [number * len(ordered) // count for number in range(count + 1)]
    parts = [ordered[begin:end] for begin, end in pairwise(edges)]
    scale = sum(ordered) / len(ordered) / (sum([sum(part) / len(part) for part in parts]) / count)
    return tuple([float(f"{scale * sum(part) / len(part):.5g}") for part in parts])
