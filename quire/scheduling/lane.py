"""Knows: that there are two lanes, and that the second lives on what the first leaves. Does not know: steps or tokens.

ordinary   |==== decided as if it were alone ====|
flex       |.. rows, blocks and time that are idle ..|   gives them back as soon as they are wanted
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.scheduling.accounts import Accounts
from quire.scheduling.entry import Entry
from quire.scheduling.holdings import Holdings
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.line import Line
from quire.scheduling.policy import Policy


@dataclass(frozen=True, slots=True)
class Lane:
    """A line, what its tenants were served in it, and who of those waiting in it may run."""

    line: Line
    accounts: Accounts
    entry: Entry

    @property
    def num_rows(self) -> int:
        """Rows that its running sequences fill."""
        return sum([seat.num_rows for seat in self.line.running])


def two_lanes(limits: SchedulerLimits, rule: Policy, holdings: Holdings) -> tuple[Lane, Lane]:
    """The ordinary lane and the flex lane of one pool, under one policy. A tenant has an account in each."""
    first_accounts, second_accounts = Accounts(), Accounts()
    first, second = Line(first_accounts), Line(second_accounts)
    ordinary = Entry(limits, rule, first, first_accounts, holdings, behind=second)
    flex = Entry(limits, rule, second, second_accounts, holdings, before=first)
    return Lane(first, first_accounts, ordinary), Lane(second, second_accounts, flex)
