"""Knows: whom a newcomer finds before it under the policy, as claims for the forecast. Does not know: what comes of it.

A tenant sees a machine of its own: the rows and slots of its share, or what the others leave if that is more. What the
others read meanwhile makes its steps longer, and its own queue alone goes before it.

So it is while the others are here. That is taken to last as long again as others have been waiting already (what has
lasted goes on, what has just begun may be a burst), and at least until those of them who are here have been served.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from quire.request import Request
from quire.scheduling import forecast, policy
from quire.scheduling.accounts import Account
from quire.scheduling.cost import CostModel
from quire.scheduling.forecast import SIMULATED, Claim, Forecast, Scene
from quire.scheduling.holdings import Holdings
from quire.scheduling.lane import Lane
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.policy import Policy
from quire.scheduling.seat import Seat

LAST_ARRIVAL = 2**62
HELD_SHARE = 0.5  # of what an answer will take, on average while it runs: admission looks at the peak of all together


class Outlook:
    """Looks at the line and the blocks, and changes nothing."""

    def __init__(
        self,
        limits: SchedulerLimits,
        rule: Policy,
        holdings: Holdings,
        cost: CostModel,
        itl_target: ItlTarget,
        ordinary: Lane,
        flex: Lane,
    ) -> None:
        self._limits = limits
        self._rule = rule
        self._holdings = holdings
        self._cost = cost
        self._itl_target = itl_target
        self._line = ordinary.line
        self._accounts = ordinary.accounts
        self._lengths = ordinary.entry.lengths
        self._flex = flex.line
        self._begun = [_Begun(), _Begun()]
        num_blocks = holdings.pool.num_blocks
        self._num_slots = (num_blocks - policy.watermark(num_blocks)) * limits.block_size

    @property
    def is_idle(self) -> bool:
        """True while nobody is here, flex requests left out."""
        return not self._line.running and not self._line.num_waiting

    def num_waiting_tokens(self, flex: bool) -> int:
        """Prompt tokens of everyone who waits in that lane."""
        return self._flex.num_waiting_tokens if flex else self._line.num_waiting_tokens

    def is_within_share(self, request: Request, most: int) -> bool:
        """True if the prompts of its tenant that wait, and its own, stay within an equal part of `most` tokens."""
        if not self._rule.by_tenant or request.flex:
            return False
        account = self._accounts.find(request.tenant)
        queue = [] if account is None else self._line.queue_of(account)
        num_tenants = self._line.num_queues + (not queue)
        return sum([len(seat.request.prompt) for seat in queue]) + len(request.prompt) <= most // num_tenants

    def unheard(self, request_ids: Iterable[str]) -> list[Seat]:
        """Those of these who wait and have not drawn a token."""
        wanted, waiting = set(request_ids), chain(self._line.waiting(), self._flex.waiting())
        return [seat for seat in waiting if seat.request.id in wanted and not seat.num_output]

    def num_cached(self, request: Request) -> int:
        """Tokens at the beginning of `request` that need not be computed, as things are now."""
        return len(self._holdings.match(Seat(0, request, tokens=list(request.prompt)))) * self._holdings.block_size

    def forecast(self, request: Request, now: float, num_cached: int = 0) -> Forecast | None:
        """When `request`, if it came now, would begin and have its first token; None before any step was timed."""
        account = self._accounts.find(request.tenant if self._rule.by_tenant else "") or Account("", request.weight)
        scene = self._scene(account, request, now)
        if scene is None:
            return None
        num_to_read = len(request.prompt) - num_cached
        wait_s = forecast.wait_for_room(scene, self._claim(request, num_to_read))
        return Forecast(wait_s, forecast.own_time(scene.pace, num_to_read), scene.pace.full_step_s)

    def _scene(self, account: Account, request: Request, now: float) -> Scene | None:
        line, limits = self._line, self._limits
        queue = line.queue_of(account)
        num_others_wait = line.num_waiting - len(queue)
        lasted_s = self._others_have_waited(num_others_wait, bool(queue), now)
        seen = self._survey(account)
        all_rows = min(limits.max_num_seqs, seen.rows + seen.other_rows + line.num_waiting)
        context = seen.num_held * all_rows // max(1, seen.rows + seen.other_rows)
        pace = forecast.pace_of(self._cost, all_rows, context, limits.max_num_batched_tokens, self._itl_target)
        if pace is None:
            return None
        share = self._share(account)
        rows = max(share * limits.max_num_seqs, limits.max_num_seqs - seen.other_rows - num_others_wait)
        crowd = 1 + num_others_wait / max(1, seen.other_rows)
        reads = seen.other_backlog + line.num_waiting_tokens * num_others_wait / max(1, line.num_waiting)
        slots = max(share * self._num_slots, self._num_slots - seen.other_slots * crowd)
        is_under = share < 1.0 and seen.rows + request.num_rows <= share * limits.max_num_seqs
        beside_s = pace.token_s * min(pace.chunk, seen.other_reads) if num_others_wait else 0.0
        known = crowd * seen.other_left / max(1, seen.other_rows) + reads / pace.chunk
        step_s = pace.step_s + beside_s  # 0 of a device that was seen to charge for tokens alone, while nobody draws
        num_steps = math.ceil(max(known, lasted_s / step_s if step_s > 0.0 else 0.0))
        num_ahead = line.num_before(account, policy.turn(self._rule, now, LAST_ARRIVAL, request.priority))
        num_simulated, read_share = min(num_ahead, SIMULATED), _read_share(line.running)
        num_rows, num_slots = max(1, round(rows)), round(slots)
        return Scene(
            pace,
            num_rows - seen.rows,
            num_slots - sum([claim.num_slots for claim in seen.claims]),
            seen.claims,
            seen.num_backlog + (0 if is_under else seen.other_backlog),
            [self._claim(each.request, round(read_share * each.num_prompt)) for each in queue[:num_simulated]],
            num_ahead - num_simulated,
            Claim(0, num_steps, limits.max_num_seqs - num_rows, self._num_slots - num_slots),
            beside_s,
        )

    def _others_have_waited(self, num_others: int, waits_too: bool, now: float) -> float:
        """For so many seconds, without a break."""
        counts = self._line.num_queues_begun
        lasted = [begun.seconds(count, now) for begun, count in zip(self._begun, counts, strict=False)]
        return lasted[waits_too] if num_others else 0.0

    def _survey(self, account: Account) -> _Survey:
        """Claims of those of `account` who run, and sums over the others."""
        seen, num_left = _Survey(), self._lengths.num_left
        for seat in self._line.running:
            num_tokens = len(seat.tokens)
            num_output, left = num_tokens - len(seat.request.prompt), seat.last_len - num_tokens
            if not seat.request.params.ignore_eos:
                left = num_left(num_output, left)
            num_rows = seat.num_rows
            seen.num_held += num_tokens
            owed = num_tokens - seat.num_computed
            num_slots = num_tokens + int(HELD_SHARE * num_rows * left)
            if seat.account is account:
                seen.rows += num_rows
                seen.num_backlog += owed if owed > 1 else 0
                seen.claims.append(Claim(owed if owed > 1 else 0, left, num_rows, num_slots))
            else:
                seen.other_rows += num_rows
                seen.other_backlog += owed if owed > 1 else 0
                seen.other_slots += num_slots
                seen.other_left += num_rows * left
                seen.other_reads += (num_tokens - num_output - seat.num_cached) / (num_output + left)
        return seen

    def _share(self, account: Account) -> float:
        weights = [each.weight for each in self._accounts.active if each is not account]
        return account.weight / (account.weight + sum(weights))

    def _claim(self, request: Request, num_to_read: int) -> Claim:
        """Of one who does not run yet."""
        params = request.params
        num_to_draw = request.max_tokens if params.ignore_eos else self._lengths.num_left(0, request.max_tokens)
        num_slots = len(request.prompt) + int(HELD_SHARE * request.num_rows * num_to_draw)
        return Claim(num_to_read, num_to_draw, request.num_rows, num_slots)


@dataclass(slots=True)
class _Begun:
    """When something last began, as far as it was looked at."""

    count: int = 0
    at_s: float = 0.0

    def seconds(self, count: int, now: float) -> float:
        """Since then, if it has begun `count` times by `now`."""
        if count != self.count:
            self.count, self.at_s = count, now
        return now - self.at_s


@dataclass(slots=True)
class _Survey:
    """Who runs, as one tenant sees it; `other_reads` are prompt tokens of others in a step, if whoever of them ends is
    followed by one alike."""

    claims: list[Claim] = field(default_factory=list)
    num_held: int = 0
    rows: int = 0
    num_backlog: int = 0
    other_rows: int = 0
    other_backlog: int = 0
    other_slots: int = 0
    other_left: float = 0.0
    other_reads: float = 0.0


def _read_share(running: list[Seat]) -> float:
    """The part of prompts that had to be computed."""
    num_prompt = sum([len(seat.request.prompt) for seat in running])
    return 1.0 - sum([seat.num_cached for seat in running]) / num_prompt if num_prompt else 1.0
