"""Knows: which requests a comparison is made of. Does not know: policies, engines or machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path
from random import Random

from quire.cli.bench.workload import poisson
from quire.errors import InvalidSetting
from quire.sim.savings.asks import Ask
from quire.sim.trace import Arrival, read_trace

Prompts = Callable[[int, int], tuple[int, ...]]
FIRST_IDS = 2**31 + 1  # of prompts that no model reads: what follows may be alike, the first is not
NOTHING = (0,)


@dataclass(frozen=True, slots=True)
class Load:
    """`num_requests` of one size, or so many of a `trace`, evenly spread; `rate` a second (None: all at once), or
    `concurrency` users who ask one after the other."""

    num_requests: int = 32
    input_tokens: int = 128
    output_tokens: int = 128
    trace: Path | None = None
    rate: float | None = None
    concurrency: int | None = None
    seed: int = 1

    def check(self) -> None:
        """Refuse a load that cannot be meant."""
        lows = {"requests": self.num_requests, "input-tokens": self.input_tokens, "output-tokens": self.output_tokens}
        for name, value in (lows | {"concurrency": self.concurrency}).items():
            if value is not None and value < 1:
                raise InvalidSetting(f"--{name} is too small", got=value, allowed="1 or more")
        if self.rate is not None and not 0 < self.rate < inf:
            raise InvalidSetting("--rate is out of range", got=self.rate, allowed="a number above 0")
        if self.rate is not None and self.concurrency is not None:
            raise InvalidSetting("--rate and --concurrency contradict each other", hint="Users wait for answers.")

    def arrivals(self) -> list[Arrival]:
        """When each comes, and how long it is. Raises `StartError` for a trace that cannot be read."""
        if self.trace is not None:
            return self._timed(self._spread_out(read_trace(self.trace)))
        times = poisson(Random(self.seed), self.rate) if self.rate else iter(lambda: 0.0, None)
        times_s = list(islice(times, self.num_requests))
        return [Arrival(at_s - times_s[0], self.input_tokens, self.output_tokens) for at_s in times_s]

    def _spread_out(self, rows: list[Arrival]) -> list[Arrival]:
        """So many of the trace at even distances: its beginning is not like its whole."""
        count = min(self.num_requests, len(rows))
        return [rows[number * len(rows) // count] for number in range(count)]

    def _timed(self, rows: list[Arrival]) -> list[Arrival]:
        span_s = rows[-1].at_s
        stretch = len(rows) / self.rate / span_s if self.rate and span_s else 0.0
        return [Arrival(row.at_s * stretch, row.num_prompt, row.num_output) for row in rows]


def asks_of(arrivals: list[Arrival], max_model_len: int, prompts: Prompts) -> list[Ask]:
    """Requests that fit the context. Each asks for the longest answer of them all, as clients with one setting do,
    and gets its own; where all are alike, that is the same."""
    fitting = [one for one in arrivals if one.num_prompt + one.num_output <= max_model_len]
    if not fitting:
        raise InvalidSetting("every request is longer than the context", allowed=f"at most {max_model_len} tokens")
    longest = max(one.num_output for one in fitting)
    return [
        Ask(
            one.at_s,
            prompts(number, one.num_prompt),
            one.num_output,
            min(longest, max_model_len - one.num_prompt),
        )
        for number, one in enumerate(fitting)
    ]


def random_prompts(seed: int, vocab_size: int) -> Prompts:
    """Ids of the vocabulary, drawn anew for each request."""
    rng = Random(seed)

    def draw(number: int, count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocab_size) for _ in range(count))

    return draw


def blank_prompts(number: int, count: int) -> tuple[int, ...]:
    """Prompts that nobody reads and that share nothing."""
    return (FIRST_IDS + number, *NOTHING * (count - 1))
