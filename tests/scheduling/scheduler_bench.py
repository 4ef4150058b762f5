"""A scheduler, a pool and a fake runner on one bench. Knows: how to turn the crank. Does not know: what to expect."""

from __future__ import annotations

from typing import Any

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.request import Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.cost import CostModel
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.scheduler import Scheduler
from quire.scheduling.survival import HORIZONS, NUM_BUCKETS, Survival
from quire.step import Delta, Step


def request(name: str, prompt: int | list[int], salt: bytes = b"", eos: tuple[int, ...] = (), **params: Any) -> Request:
    """A request with `prompt` tokens 1000, 1001, ... or with exactly these."""
    tokens = tuple(range(1000, 1000 + prompt)) if isinstance(prompt, int) else tuple(prompt)
    own = {key: params.pop(key) for key in ("tenant", "weight", "priority", "flex") if key in params}
    return Request(name, tokens, SamplingParams(**{"seed": 1, "max_tokens": 4, **params}), eos, salt, **own)


class Bench:
    """`step()` schedules, runs, settles and checks the laws."""

    def __init__(
        self,
        *,
        blocks: int = 16,
        seqs: int = 8,
        budget: int = 64,
        length: int = 1000,
        size: int = 4,
        cache: bool = True,
        policy: str = "fcfs",
        itl_target: ItlTarget | None = None,
        cost: CostModel | None = None,
    ) -> None:
        limits = SchedulerLimits(seqs, budget, length, size)
        self.pool = BlockPool(blocks)
        self.scheduler = Scheduler(limits, self.pool, PrefixIndex(size) if cache else None, policy, itl_target, cost)
        self.runner = FakeRunner(vocab_size=500, block_size=size)
        self.heard: list[Delta] = []
        self.num_preempted = 0
        self.step_ids: list[int] = []
        self.computed: list[tuple[int, int]] = []  # (start, tokens) of each work

    def add(self, *requests: Request, now: float = 0.0) -> None:
        for each in requests:
            self.scheduler.add(each, now)

    def step(self) -> Step:
        step = self.scheduler.schedule(0.0)
        assert step is not None
        self.step_ids.append(step.id)
        self.computed += [(work.start, len(work.tokens)) for work in step.works]
        self.heard += self.scheduler.settle(step, self.runner.run(step), 0.0)
        self.scheduler.check()
        self.num_preempted += self.scheduler.stats().num_preempted
        return step

    def run(self, limit: int = 500) -> list[Step]:
        steps = []
        while self.scheduler.has_work:
            steps.append(self.step())
            assert len(steps) < limit
        return steps

    def tokens(self, name: str, index: int = 0) -> list[int]:
        mine = [delta for delta in self.heard if (delta.request_id, delta.index) == (name, index)]
        return [token for delta in mine for token in delta.tokens]


def grants(step: Step) -> list[tuple[int, int]]:
    """(sequence, tokens) of each work."""
    return [(work.seq_id, len(work.tokens)) for work in step.works]


def blind(bench: Bench) -> Bench:
    """A bench whose scheduler expects every answer to be short, and so runs out of blocks."""
    everyone_ends = Survival([0.0] * NUM_BUCKETS, {}, 0)
    everyone_ends.ahead = lambda bucket: [0.0] * len(HORIZONS)  # type: ignore[method-assign]
    bench.scheduler._ordinary.entry.lengths.survival = lambda running, guess: everyone_ends  # type: ignore[method-assign]
    return bench


def alone(each: Request) -> list[list[int]]:
    """What each sample of `each` says on a bench of its own."""
    bench = Bench(blocks=200, cache=False)
    bench.add(each)
    bench.run()
    return [bench.tokens(each.id, index) for index in range(each.params.n)]
