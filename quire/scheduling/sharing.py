"""Knows: what each tenant holds beside its share, and so whose first tokens go before and who makes way.

A tenant's use is the larger of its parts of rows and of blocks (dominant resource; Ghodsi et al. 2011); its share is
its weight among the tenants that are here. Does not know: policies, queues, or how blocks change hands.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from quire.scheduling.accounts import Account
from quire.scheduling.holdings import Holdings
from quire.scheduling.policy import DEFERRED, FAVOURED, ORDINARY
from quire.scheduling.seat import Seat


@dataclass(frozen=True, slots=True)
class Room:
    """Rows and blocks: how many there are, or are wanted."""

    rows: int
    blocks: int


def shares(active: SequenceOf[Account]) -> dict[Account, float]:
    """Each tenant's share of everything."""
    total = sum([account.weight for account in active])
    return {account: account.weight / total for account in active}


def uses(running: SequenceOf[Seat], whole: Room, block_size: int) -> dict[Account, float]:
    """Each running tenant's use of `whole`, counting the blocks of what is still to be computed too."""
    rows: dict[Account, int] = {}
    blocks: dict[Account, int] = {}
    for seat in running:
        account = seat.account
        rows[account] = rows.get(account, 0) + seat.num_rows
        blocks[account] = blocks.get(account, 0) + -(-len(seat.tokens) // block_size)
    return {account: max(rows[account] / whole.rows, blocks[account] / whole.blocks) for account in rows}


def standing(running: SequenceOf[Seat], active: SequenceOf[Account], whole: Room, block_size: int) -> list[int]:
    """For each running sequence: FAVOURED if it brings a tenant under its share its first token, DEFERRED if it draws
    for a tenant over its share, else ORDINARY. Shares are of what is in use now."""
    if len(active) < 2:
        return []
    share, use = shares(active), uses(running, whole, block_size)
    in_use = sum(use.values())
    over = {account for account, used in use.items() if used > share[account] * in_use}
    return [
        (DEFERRED if seat.num_owed == 1 else ORDINARY)
        if seat.account in over
        else (FAVOURED if not seat.num_output else ORDINARY)
        for seat in running
    ]


def is_under_share(account: Account, wanted: Room, active: SequenceOf[Account], whole: Room) -> bool:
    """True if `account` stays within its share when one of its sequences that takes `wanted` runs too."""
    rows, blocks = wanted.rows + account.num_rows, wanted.blocks + account.num_blocks
    share = account.weight / sum([each.weight for each in active])
    return max(rows / whole.rows, blocks / whole.blocks) <= share


def who_makes_way(
    missing: Room, running: SequenceOf[Seat], active: SequenceOf[Account], whole: Room, holdings: Holdings
) -> list[Seat]:
    """Sequences of tenants over their share (of a search one) that free `missing` rows and blocks, least work lost
    first; none if that is not enough. The first of `running` stays: someone always finishes."""
    share, use = shares(active), uses(running, whole, holdings.block_size)
    rows, blocks = missing.rows, missing.blocks
    left = [seat for seat in running[1:] if seat not in running[0].company]
    leaving: list[Seat] = []
    while rows > 0 or blocks > 0:
        over = [seat for seat in left if use[seat.account] > share[seat.account]]
        if not over:
            return []
        most = max(use[seat.account] / share[seat.account] for seat in over)
        mine = [seat for seat in over if use[seat.account] / share[seat.account] == most]
        seat = min(mine, key=lambda seat: (holdings.num_lost(seat), [-part for part in seat.place]))
        leaving.append(seat)
        blocks -= holdings.num_freed(seat)
        for each in seat.company or (seat,):
            left.remove(each)
            rows -= each.num_rows
            use[each.account] -= max(each.num_rows / whole.rows, len(each.blocks) / whole.blocks)
    return leaving
