"""How many requests are inside, from the moment they are let in to the end of their answers.

When the house is full, a tenant with less inside than an equal part of it is still let in: another's flood does not
close the door to it. However many tenants there are, no more than twice the limit comes in.

Knows: counts by tenant. Does not know: what a request is, who counts as waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from quire.errors import KeyBusy, Overloaded


@dataclass(slots=True)
class Door:
    """Counts engine requests, those still being translated included: they all come in before the engine sees one."""

    num_inside: int = 0
    by_tenant: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """One HTTP request's stay; what it asked for is given back at its end."""
        visit = Visit(self)
        try:
            yield visit
        finally:
            self.num_inside -= visit.num
            self.by_tenant[visit.tenant] -= visit.num
            if not self.by_tenant[visit.tenant]:
                del self.by_tenant[visit.tenant]

    def has_room(self, num: int, limit: int, tenant: str) -> bool:
        """True if `num` more of `tenant` may come in."""
        if self.num_inside + num <= limit:
            return True
        mine = self.by_tenant[tenant]
        num_tenants = len(self.by_tenant) + (mine == 0)
        return mine + num <= limit // num_tenants and self.num_inside + num <= 2 * limit


@dataclass(slots=True)
class Visit:
    """One HTTP request's share of what is inside."""

    door: Door
    num: int = 0
    tenant: str = ""

    def ask(self, num: int, limit: int, tenant: str = "", most: int | None = None) -> None:
        """Let `num` more of `tenant` in, or raise `Overloaded` if more than `limit` would be inside, and `KeyBusy` if
        more than `most` of the tenant's own."""
        if most is not None and self.door.by_tenant[tenant] + num > most:
            raise KeyBusy(
                "this key has as many requests under way as it may",
                got=f"{self.door.by_tenant[tenant]} inside, {num} more",
                allowed=f"{most} at once",
                hint="Wait for one of them to end.",
            )
        if not self.door.has_room(num, limit, tenant):
            raise Overloaded(
                "too many requests are waiting",
                got=f"{self.door.num_inside} inside, {num} more",
                allowed=f"{limit} running or waiting",
                hint="Try again later.",
            )
        self.door.num_inside += num
        self.door.by_tenant[tenant] += num
        self.num += num
        self.tenant = tenant
