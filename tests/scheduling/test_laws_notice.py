"""The checks themselves, shown damage of each kind. Knows: where it hurts. Does not know: how it could happen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scheduler_bench import Bench, request

from quire.errors import InternalError
from quire.scheduling.scheduler import Scheduler


def miscount_owners(scheduler: Scheduler) -> None:
    scheduler._pool.share(scheduler._ordinary.line.running[0].blocks[0])


def miscount_slots(scheduler: Scheduler) -> None:
    scheduler._holdings.num_filled += 1


def keep_unpublished(scheduler: Scheduler) -> None:
    scheduler._pool.keep(scheduler._ordinary.line.running[0].blocks[-1:])


def overtake(scheduler: Scheduler) -> None:
    scheduler._ordinary.line.running.reverse()


def hold_while_waiting(scheduler: Scheduler) -> None:
    scheduler._ordinary.line.put_back(scheduler._ordinary.line.running[-1])


def miscount_the_rows_of_a_tenant(scheduler: Scheduler) -> None:
    scheduler._ordinary.line.running[0].account.num_rows -= 1


def miscount_the_blocks_of_a_tenant(scheduler: Scheduler) -> None:
    scheduler._ordinary.line.running[0].account.num_blocks += 1


def forget_a_sample(scheduler: Scheduler) -> None:
    del scheduler._families["b"][0]


def lose_a_seat(scheduler: Scheduler) -> None:
    scheduler._seats.popitem()


@pytest.mark.parametrize(
    "damage",
    [
        miscount_owners,
        miscount_slots,
        keep_unpublished,
        overtake,
        hold_while_waiting,
        miscount_the_rows_of_a_tenant,
        miscount_the_blocks_of_a_tenant,
        forget_a_sample,
        lose_a_seat,
    ],
)
def test_check_notices(damage: Callable[[Scheduler], None]) -> None:
    bench = Bench(size=4)
    bench.add(request("a", 6, max_tokens=9), request("b", [1, 2, 3], max_tokens=9))
    bench.step()
    bench.scheduler.check()
    damage(bench.scheduler)
    with pytest.raises(InternalError):
        bench.scheduler.check()
