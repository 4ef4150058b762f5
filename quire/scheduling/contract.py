"""Knows: what is promised to a newcomer, and when it is refused or dropped instead. Does not know: a clock.

    comes    queue full in tokens            -> QueueFull            429, now
             wait over the queue's bound     -> WaitTooLong          429, now
             first token after its deadline  -> DeadlineUnreachable  429, now
    waits    deadline cannot be kept any more -> DeadlineExceeded    429, then; it has cost nothing
    runs     answered, late or not

Every first token of one who had to wait teaches how far off the forecast was: an estimate is the forecast times the
median of actual to predicted seconds, and a deadline is promised by the 99th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from quire.errors import DeadlineExceeded, DeadlineUnreachable, QueueFull, WaitTooLong
from quire.plan import Contract
from quire.request import Request
from quire.scheduling.forecast import Forecast
from quire.scheduling.outlook import Outlook
from quire.step import Delta

TYPICAL, SAFE = 0.5, 0.99  # quantiles of actual to predicted seconds
QUANTILE_STEP = 0.1
LEAST_FACTOR, MOST_FACTOR = 0.25, 4.0
LEAST_SAFE = 1.2  # a machine that is shared slows down now and then by more than the percentile has seen lately
LEAST_WAIT_S = 1e-3  # shorter waits say nothing of the forecast
LEAST_RETRY_S = 1.0  # after a deadline that has passed: the forecast was wrong
DEADLINE_PARAM = "x-quire-deadline-ms"
STALE_S = 10.0  # after so long without a step an idle engine lets one in, whatever it believes


@dataclass(frozen=True, slots=True)
class Expired:
    """A request whose deadline passed while it waited, and the tokens that were computed for it in vain."""

    request_id: str
    error: DeadlineExceeded
    num_tokens: int


@dataclass(slots=True)
class Promise:
    """One who was let in and has not had its first token."""

    arrival_s: float
    deadline_s: float
    forecast: Forecast | None
    estimate_s: float

    @property
    def last_call_s(self) -> float:
        """When its prompt has to be begun: the deadline, less what it takes if that was thought to be possible."""
        needed_s = 0.0 if self.forecast is None else self.forecast.late_own_s
        return self.deadline_s - needed_s if self.arrival_s + needed_s < self.deadline_s else self.deadline_s


class Gate:
    """`judge` newcomers, `keep` a promise for those let in, `hear` their first tokens, and say who has `expired`."""

    def __init__(self, contract: Contract, outlook: Outlook) -> None:
        self.typical, self.safe = 1.0, LEAST_SAFE
        self._contract = contract
        self._outlook = outlook
        self._promises: dict[str, Promise] = {}
        self._next_s = inf
        self._last_step_s = -inf

    def judge(self, request: Request, now: float) -> Promise:
        """What may be promised to `request`, or the `Overloaded` that says why and when to come back.

        Only the first request of a job is judged: the others come in with it. A flex request waits for idle time,
        which nobody foresees: nothing is promised to it. One that goes on after its engine was lost is not judged
        again: its deadline holds while nothing was told of it, and what it waits now says nothing of the forecast.
        """
        deadline_s = inf if request.deadline_s is None else request.deadline_s
        if request.resumed is not None:
            has_begun = any(tokens for _, tokens in request.resumed.samples)
            return Promise(now, inf if has_begun else deadline_s, None, 0.0)
        forecast = None if request.flex else self._outlook.forecast(request, now)
        if request.leads:
            self._check_tokens(request, forecast)
        if forecast is None:
            return Promise(now, deadline_s, None, 0.0)
        if request.leads:
            self._check_wait(forecast)
            if deadline_s < inf and not (self._outlook.is_idle and now > self._last_step_s + STALE_S):
                forecast = self._check_deadline(request, forecast, now)
        # A search says nothing before its end: nothing is learnt from when that comes.
        told = None if request.beams is not None else forecast
        return Promise(now, deadline_s, told, self.estimate(forecast))

    def estimate(self, forecast: Forecast) -> float:
        """Seconds to the first token, as forecasts have turned out lately."""
        return _scaled(forecast, self.typical)

    def keep(self, request_id: str, promise: Promise) -> None:
        """`request_id` has come in on these terms."""
        self._promises[request_id] = promise
        self._next_s = min(self._next_s, promise.last_call_s)

    def forget(self, request_id: str) -> None:
        """Nobody waits for it any more."""
        self._promises.pop(request_id, None)

    def hear(self, deltas: Iterable[Delta], now: float) -> tuple[tuple[float, float], ...]:
        """A step ended at `now` with these news: the estimated and the actual wait of each first token in them."""
        self._last_step_s = now
        promises = self._promises
        if not promises:
            return ()
        heard = []
        for delta in deltas:
            if delta.request_id in promises and (delta.tokens or delta.finish is not None):
                promise = promises.pop(delta.request_id)
                if delta.tokens and promise.forecast is not None:
                    heard.append((promise.estimate_s, now - promise.arrival_s))
                    self._learn(promise.forecast, now - promise.arrival_s)
        return tuple(heard)

    def expired(self, now: float) -> list[Expired]:
        """Those who have no place and cannot keep their deadline any more, were they next; the caller ends them."""
        if now < self._next_s:
            return []
        late = [name for name, promise in self._promises.items() if promise.last_call_s <= now]
        found = []
        for seat in self._outlook.unheard(late):
            promise = self._promises.pop(seat.request.id)
            found.append(Expired(seat.request.id, _too_late(promise, now), seat.num_own))
        for name in late:
            if name in self._promises:
                self._promises[name].deadline_s = inf  # it runs: it will be answered
        self._next_s = min([promise.last_call_s for promise in self._promises.values()], default=inf)
        return found

    def _learn(self, forecast: Forecast, seconds: float) -> None:
        if forecast.wait_s < LEAST_WAIT_S:
            return
        ratio = seconds / forecast.ttft_s
        self.typical = _followed(self.typical, ratio, TYPICAL)
        self.safe = max(LEAST_SAFE, _followed(self.safe, ratio, SAFE))

    def _check_wait(self, forecast: Forecast) -> None:
        wait_s, bound_s = self.typical * forecast.wait_s, self._contract.max_wait_s
        if wait_s > bound_s:
            raise WaitTooLong(
                "too much is waiting",
                got=f"a wait of about {_shown(wait_s)}",
                allowed=f"{_shown(bound_s)} (--max-queue-seconds)",
                hint=_come_back(wait_s - bound_s),
                retry_after_s=wait_s - bound_s,
                estimate_s=self.estimate(forecast),
            )

    def _check_tokens(self, request: Request, forecast: Forecast | None) -> None:
        most, num_waiting = self._contract.max_tokens, self._outlook.num_waiting_tokens(request.flex)
        num_over = 0 if most is None else num_waiting + len(request.prompt) - most
        if num_waiting and num_over > 0 and not self._outlook.is_within_share(request, most or 0):
            wait_s = LEAST_RETRY_S if forecast is None else self.typical * forecast.wait_s
            later_s = wait_s * min(1.0, num_over / num_waiting)
            raise QueueFull(
                "too many tokens are waiting",
                got=f"{num_waiting} prompt tokens in the queue, {len(request.prompt)} more",
                allowed=f"{most} (--max-waiting-tokens)",
                hint=_come_back(later_s),
                retry_after_s=later_s,
                estimate_s=None if forecast is None else self.estimate(forecast),
            )

    def _check_deadline(self, request: Request, forecast: Forecast, now: float) -> Forecast:
        """The forecast, made again with what is cached of the prompt if that decides; or `Overloaded`."""
        deadline_s = inf if request.deadline_s is None else request.deadline_s
        left_s = deadline_s - now
        if left_s <= 0:
            raise _too_late(Promise(now, deadline_s, forecast, self.estimate(forecast)), now)
        decisive = self.safe * forecast.wait_s <= left_s < _scaled(forecast, self.safe)
        if decisive and (found := self._outlook.num_cached(request)):
            forecast = self._outlook.forecast(request, now, found) or forecast
        needed_s = max(_scaled(forecast, self.safe), forecast.wait_s + forecast.late_own_s)
        if needed_s <= left_s:
            return forecast
        alone = forecast.own_s > left_s
        raise DeadlineUnreachable(
            "the first token would come after the deadline",
            got=f"about {_shown(self.estimate(forecast))} to the first token",
            allowed=f"{_shown(left_s)} left of the deadline",
            hint=f"It would take {_shown(forecast.own_s)} with nobody before it: allow more, or shorten the prompt."
            if alone
            else _come_back(needed_s - left_s),
            param=DEADLINE_PARAM,
            retry_after_s=needed_s - left_s,
            estimate_s=self.estimate(forecast),
        )


def _too_late(promise: Promise, now: float) -> DeadlineExceeded:
    left_s = promise.deadline_s - promise.arrival_s
    return DeadlineExceeded(
        "the deadline of the first token has passed"
        if promise.deadline_s <= now
        else "the first token cannot come by its deadline any more",
        got=f"{_shown(now - promise.arrival_s)} in the queue" if left_s > 0 else "none left on arrival in the engine",
        allowed=f"{_shown(left_s)} when it came to the queue" if left_s > 0 else None,
        hint="Nothing was computed for it. Try again later, or allow more time.",
        param=DEADLINE_PARAM,
        retry_after_s=max(LEAST_RETRY_S, promise.estimate_s),
        estimate_s=promise.estimate_s,
    )


def _scaled(forecast: Forecast, factor: float) -> float:
    """Seconds to the first token; who need not wait depends on its own prompt alone."""
    return forecast.ttft_s if forecast.wait_s < LEAST_WAIT_S else factor * forecast.ttft_s


def _followed(factor: float, ratio: float, quantile: float) -> float:
    """`factor`, moved a little towards the `quantile` of what `ratio` is drawn from."""
    moved = factor * math.exp(QUANTILE_STEP * (quantile if ratio > factor else quantile - 1.0))
    return min(MOST_FACTOR, max(LEAST_FACTOR, moved))


def _come_back(seconds: float) -> str:
    return f"Try again in {_shown(max(0.001, seconds))}."


def _shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * max(0.0, seconds):.3g} ms"
