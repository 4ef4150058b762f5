"""Send requests at their times, however the server keeps up, and say what the users would have felt.

Knows: outcomes and their times. Does not know: HTTP, or what the prompts say.

Open loop: a request goes out when it is due, not when an earlier one has come back, because users do not wait for each
other. A closed loop slows down with its server and hides exactly the waiting that was to be measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from quire.cli.bench.figures import significant, spread
from quire.cli.bench.http_client import Outcome
from quire.cli.bench.workload import Ask

Send = Callable[[Ask, float], Awaitable[Outcome]]


async def run(asks: Sequence[Ask], send: Send, on_done: Callable[[], None] | None = None) -> list[Outcome]:
    """One task a request, started when it is due; outcomes in the order of `asks`. `send` gets the run's start."""
    start = time.perf_counter()
    tasks = []
    for ask in sorted(asks, key=lambda ask: ask.at_s):
        await asyncio.sleep(max(0.0, start + ask.at_s - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(ask, send, start, on_done)))
    return list(await asyncio.gather(*tasks))


async def _one(ask: Ask, send: Send, start: float, on_done: Callable[[], None] | None) -> Outcome:
    outcome = await send(ask, start)
    if on_done is not None:
        on_done()
    return outcome


def report(outcomes: Sequence[Outcome], ttft_goal_s: float | None = None) -> dict[str, Any]:
    """Throughput over the whole run; percentiles over the requests that succeeded; every failure by kind.

    `ttft_s`, `e2e_s`: from when a request was due. `inter_token_s`: between pieces of text as they arrive.
    `time_per_output_token_s`: a request's time after its first text, by token. `late_s`: how late this client sent; a
    large value means that the measuring machine, not the server, was the limit. Goodput counts only requests
    whose first text came within `ttft_goal_s`.
    """
    done = [outcome for outcome in outcomes if outcome.failure is None]
    good = [each for each in done if ttft_goal_s is None or (each.ttft_s is not None and each.ttft_s <= ttft_goal_s)]
    good_output = sum(outcome.num_output_tokens for outcome in good)
    seconds = max((outcome.end_s for outcome in outcomes), default=0.0)
    prompt = sum(outcome.num_prompt_tokens for outcome in done)
    output = sum(outcome.num_output_tokens for outcome in done)
    span = max((outcome.due_s for outcome in outcomes), default=0.0)
    return {
        "requests": len(outcomes),
        "completed": len(done),
        "failed": len(outcomes) - len(done),
        "failures": dict(Counter(outcome.failure for outcome in outcomes if outcome.failure)),
        "seconds": significant(seconds),
        "offered_requests_per_s": significant(len(outcomes) / span) if span else None,
        "requests_per_s": significant(len(done) / seconds) if seconds else 0.0,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "prompt_tokens_per_s": significant(prompt / seconds) if seconds else 0.0,
        "output_tokens_per_s": significant(output / seconds) if seconds else 0.0,
        "goodput_requests_per_s": significant(len(good) / seconds) if seconds else 0.0,
        "goodput_output_tokens_per_s": significant(good_output / seconds) if seconds else 0.0,
        "ttft_s": spread(outcome.ttft_s for outcome in done if outcome.ttft_s is not None),
        "inter_token_s": spread(gap for outcome in done for gap in outcome.gaps_s),
        "time_per_output_token_s": spread(
            (outcome.chunk_s[-1] - outcome.chunk_s[0]) / (outcome.num_output_tokens - 1)
            for outcome in done
            if outcome.num_output_tokens > 1
        ),
        "e2e_s": spread(outcome.end_s - outcome.due_s for outcome in done),
        "late_s": spread(outcome.sent_s - outcome.due_s for outcome in outcomes),
    }
