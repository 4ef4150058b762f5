"""Knows: how much service each tenant has had: virtual token counters. Does not know: sequences, blocks or clocks.

a tenant begins to wait      its counter is lifted to the least of those who wait
a request is admitted        + prompt tokens to compute          / weight
a token is drawn             + price of it and of what is held   / weight
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from quire.scheduling import policy

MAX_IDLE = 4096  # tenants that are remembered while they ask for nothing


@dataclass(slots=True, eq=False)
class Account:
    """One tenant: `service` is what it was charged with, divided by its weight; `num_seats` of its sequences are here.

    `output_price` and `held_price` are the prices of a draw, divided by the weight. Those of its sequences that run
    fill `num_rows` and hold `num_blocks`, a block that two of them share counted twice.
    """

    name: str
    weight: float = 1.0
    service: float = 0.0
    num_seats: int = 0
    output_price: float = policy.OUTPUT_PRICE
    held_price: float = policy.HELD_PRICE
    num_rows: int = 0
    num_blocks: int = 0

    def charge(self, amount: float) -> None:
        """Count `amount` of service."""
        self.service += amount / self.weight


class Accounts:
    """Every tenant that is here, and the last `MAX_IDLE` that were."""

    def __init__(self) -> None:
        self._active: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()
        self._last_left: Account | None = None

    @property
    def active(self) -> list[Account]:
        """Tenants with sequences here, in the order in which they came."""
        return list(self._active.values())

    def find(self, name: str) -> Account | None:
        """The tenant of that name, if it is here or is remembered."""
        return self._active.get(name) or self._idle.get(name)

    def enter(self, name: str, weight: float) -> Account:
        """One more sequence of `name` is here. Its newest weight holds."""
        account = self._active.get(name) or self._idle.pop(name, None) or Account(name)
        self._active[name] = account
        if account.weight != weight:
            account.weight = weight
            account.output_price, account.held_price = policy.OUTPUT_PRICE / weight, policy.HELD_PRICE / weight
        account.num_seats += 1
        return account

    def leave(self, account: Account) -> None:
        """One sequence of `account` is here no more."""
        account.num_seats -= 1
        if account.num_seats == 0:
            del self._active[account.name]
            self._idle[account.name] = account
            if len(self._idle) > MAX_IDLE:
                self._idle.popitem(last=False)

    def begin_to_wait(self, account: Account, others: list[Account]) -> None:
        """`account`, of whom nobody waited, waits now beside `others`."""
        last_left = self._last_left.service if self._last_left is not None else 0.0
        account.service = policy.lifted(account.service, [other.service for other in others], last_left)

    def end_to_wait(self, account: Account) -> None:
        """Nobody of `account` waits any more."""
        self._last_left = account
