"""The count at the door. Knows: visits. Does not know: HTTP."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from quire.errors import Overloaded
from quire.server.door import Door


def test_a_full_house_lets_in_whoever_has_less_than_its_part() -> None:
    door = Door()
    with ExitStack() as stack:

        def come(tenant: str, num: int = 1) -> None:
            stack.enter_context(door.visit()).ask(num, 10, tenant)

        for _ in range(10):
            come("a")
        with pytest.raises(Overloaded):
            come("a")
        for _ in range(5):
            come("b")
        with pytest.raises(Overloaded):
            come("b")
        come("c", 3)
        with pytest.raises(Overloaded):
            come("c")
        assert door.num_inside == 18
    assert (door.num_inside, dict(door.by_tenant)) == (0, {})


def test_any_number_of_tenants_comes_to_twice_the_limit_at_most() -> None:
    door = Door()
    with ExitStack() as stack:
        for number in range(200):
            visit = stack.enter_context(door.visit())
            if door.has_room(1, 10, str(number)):
                visit.ask(1, 10, str(number))
        assert 10 <= door.num_inside <= 20
