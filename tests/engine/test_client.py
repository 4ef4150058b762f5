"""The asking side, over an engine in a thread: streams end once, leaving aborts, refusals are typed."""

from __future__ import annotations

import asyncio
import time

import pytest

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.client import EngineClient
from quire.engine.engine import Engine
from quire.engine.local import in_thread
from quire.errors import ContextLengthExceeded, EngineDead
from quire.request import Finish, Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.step import Delta, Step, StepResult


class Paced(FakeRunner):
    """As slow as a small model: without it the fake one is done before it can be stopped."""

    def run(self, step: Step) -> StepResult:
        time.sleep(0.002)
        return super().run(step)


def engine(num_blocks: int = 64) -> Engine:
    limits = SchedulerLimits(max_num_seqs=8, max_num_batched_tokens=32, max_model_len=256, block_size=16)
    scheduler = Scheduler(limits, BlockPool(num_blocks), PrefixIndex(16))
    return Engine(scheduler, Paced(vocab_size=100, block_size=16))


def request(name: str, max_tokens: int = 10, n: int = 1, prompt: int = 20) -> Request:
    return Request(name, tuple(range(prompt)), SamplingParams(max_tokens=max_tokens, n=n, seed=1))


async def read(client: EngineClient, asked: Request) -> list[Delta]:
    return [delta async for delta in client.stream(asked)]


def run(engine: Engine, *jobs: object) -> list:
    """Each job is a function of the client giving a coroutine; all run together."""

    async def together() -> list:
        client = in_thread(engine)
        await client.start()
        try:
            return await asyncio.wait_for(
                asyncio.gather(*(job(client) for job in jobs), return_exceptions=True),  # type: ignore[operator]
                timeout=20,
            )
        finally:
            await client.close()

    return asyncio.run(together())


def test_streams_end_once_per_sample() -> None:
    asked = [request(f"r{i}", max_tokens=5 + i, n=1 + i % 3) for i in range(12)]
    results = run(engine(), *(lambda client, each=each: read(client, each) for each in asked))
    for each, deltas in zip(asked, results, strict=True):
        ends = [delta.index for delta in deltas if delta.finish]
        assert sorted(ends) == list(range(each.params.n))
        for index in range(each.params.n):
            tokens = [token for delta in deltas if delta.index == index for token in delta.tokens]
            assert len(tokens) == each.max_tokens


def test_what_can_never_fit_is_refused_with_its_type() -> None:
    served = engine()
    (result,) = run(served, lambda client: read(client, request("big", max_tokens=300)))
    assert isinstance(result, ContextLengthExceeded)
    assert "256" in str(result)


def test_leaving_a_stream_aborts_the_request() -> None:
    served = engine()

    async def leave(client: EngineClient) -> int:
        stream = client.stream(request("left", max_tokens=200))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        await read(client, request("next", max_tokens=3))
        return client.num_open

    assert run(served, leave) == [0]
    assert not served.has_work
    assert served.scheduler.cache_use().num_used == 0
    served.scheduler.check()


def test_one_sample_can_be_aborted_alone() -> None:
    async def part(client: EngineClient) -> dict[int, Finish | None]:
        ends: dict[int, Finish | None] = {}
        async for delta in client.stream(request("pair", max_tokens=150, n=2)):
            if delta.tokens and delta.index == 1 and 1 not in ends:
                client.abort("pair", 1)
            if delta.finish:
                ends[delta.index] = delta.finish
        return ends

    assert run(engine(), part) == [{0: Finish.LENGTH, 1: Finish.ABORT}]


def test_stats_are_told_in_the_loop() -> None:
    async def count(client: EngineClient) -> int:
        told = []
        client.on_stats = told.append
        await read(client, request("r", max_tokens=4))
        return sum(stats.num_output_tokens for stats in told)

    assert run(engine(), count) == [4]


def test_an_engine_that_dies_ends_every_stream() -> None:
    class Dying(FakeRunner):
        def run(self, step: Step) -> StepResult:
            from quire.errors import InternalError

            if step.id == 5:
                raise InternalError("the runner broke")
            return super().run(step)

    served = engine()
    served.runner = Dying(vocab_size=100, block_size=16)

    async def then_refuse(client: EngineClient) -> list[object]:
        first = await asyncio.gather(
            read(client, request("a", 50)), read(client, request("b", 50)), return_exceptions=True
        )
        assert not client.is_ready
        with pytest.raises(EngineDead):
            await read(client, request("c"))
        return first

    (results,) = run(served, then_refuse)
    assert len(results) == 2
    assert all("the runner broke" in str(result) for result in results)
