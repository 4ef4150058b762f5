"""A server's phases, and the tasks that end with the last one."""

from __future__ import annotations

import asyncio

import pytest

from quire.errors import ShuttingDown
from quire.server.lifecycle import Lifecycle, Phase


def test_phases_come_in_their_order_and_never_go_back() -> None:
    lifecycle = Lifecycle()
    told = [(lifecycle.phase, lifecycle.is_leaving, lifecycle.is_ready)]
    for order in (lifecycle.serve, lifecycle.drain, lifecycle.serve, lifecycle.end, lifecycle.drain, lifecycle.serve):
        order()
        told.append((lifecycle.phase, lifecycle.is_leaving, lifecycle.is_ready))
    assert told == [
        (Phase.STARTING, False, True),
        (Phase.SERVING, False, True),
        (Phase.DRAINING, True, False),
        (Phase.DRAINING, True, False),
        (Phase.ENDING, True, False),
        (Phase.ENDING, True, False),
        (Phase.ENDING, True, False),
    ]


def test_with_a_successor_the_address_stays_ready_until_an_order_to_leave() -> None:
    lifecycle = Lifecycle()
    lifecycle.serve()
    lifecycle.drain(has_successor=True)
    assert lifecycle.is_leaving
    assert lifecycle.is_ready
    lifecycle.drain()
    assert not lifecycle.is_ready


def test_the_end_is_an_error_that_can_be_asked_again_and_no_cancellation() -> None:
    async def live() -> list[str]:
        lifecycle, told = Lifecycle(), []

        async def one(number: int) -> None:
            try:
                with lifecycle.mortal():
                    await asyncio.sleep(number)
            except ShuttingDown as error:
                told.append(error.code or "")
                await asyncio.sleep(0)  # there is still time for a last word
            told.append("done")

        tasks = [asyncio.create_task(one(number)) for number in (0, 60, 60)]
        await asyncio.sleep(0.01)
        assert lifecycle.num_open == 2
        assert lifecycle.end() == 2
        await asyncio.gather(*tasks)
        assert lifecycle.num_open == lifecycle.end() == 0
        with pytest.raises(ShuttingDown), lifecycle.mortal():
            raise AssertionError("nothing begins after the end")
        return told

    assert sorted(asyncio.run(live())) == ["done", "done", "done", "shutting_down", "shutting_down"]


@pytest.mark.parametrize("end_first", [True, False])
def test_who_is_cancelled_besides_is_cancelled(end_first: bool) -> None:
    async def live() -> None:
        lifecycle = Lifecycle()

        async def wait() -> None:
            with lifecycle.mortal():
                await asyncio.sleep(60)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        for order in (lifecycle.end, task.cancel) if end_first else (task.cancel, lifecycle.end):
            order()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lifecycle.num_open == 0

    asyncio.run(live())
