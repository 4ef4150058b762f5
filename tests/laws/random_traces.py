"""Random traces for the scheduler's laws. Knows: how to make one from a `Random`. Does not know: the laws."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from quire.beams import Beams
from quire.request import Request, SamplingParams
from quire.scheduling.limits import SchedulerLimits

VOCAB_SIZE = 7
EOS = 0


@dataclass(frozen=True)
class Abort:
    """Before step `at`, or between its schedule and its settle: end a request, or one sample of it."""

    at: int
    request_id: str
    index: int | None
    amid: bool


@dataclass(frozen=True)
class Trace:
    """Limits, a pool, who arrives before which step, who goes away, which steps' works fail, and before or amid which
    steps the whole engine is lost and another one goes on.

    A `rash` scheduler expects every answer to end with its next token, and so has to put back what it let in.
    """

    limits: SchedulerLimits
    num_blocks: int
    cache: bool
    policy: str
    arrivals: tuple[tuple[int, Request], ...]
    aborts: tuple[Abort, ...]
    failures: tuple[int, ...]
    rash: bool = False
    losses: tuple[tuple[int, bool], ...] = ()


def trace_of(random: Random, searches: bool = False, losses: bool = False) -> Trace:
    """Small pools, small budgets, few tokens: everything that can collide does.

    With `searches` most are beam searches, of which somewhat more room holds a few.
    """
    block_size = random.choice((1, 2, 3, 4, 8, 16))
    max_num_seqs = random.randint(1, 8) if not searches else random.randint(3, 16)
    num_slots = random.choice((24, 32, 48, 96)) if not searches else random.choice((64, 96, 128))
    limits = SchedulerLimits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=random.choice((1, 2, 3, 5, 8, 16, 64))
        if not searches
        else random.choice((2, 5, 8, 16, 64)),
        max_model_len=num_slots,
        block_size=block_size,
    )
    prefixes = [_tokens(random, random.randint(1, 20)) for _ in range(2)]
    kinds = [
        _search if searches and random.randint(1, 3) < 3 else _request
        for _ in range(random.randint(1 + 3 * searches, 7))
    ]
    requests = [kind(random, f"r{number}", max_num_seqs, prefixes) for number, kind in enumerate(kinds)]
    arrivals = tuple((random.choice((0, 0, random.randint(0, 30))), request) for request in requests)
    return Trace(
        limits=limits,
        num_blocks=max(1, num_slots // block_size),
        cache=random.choice((True, True, False)),
        policy=random.choice(("fcfs", "fair", "fair", "priority")),
        arrivals=tuple(sorted(arrivals, key=lambda arrival: arrival[0])),
        aborts=tuple(_abort(random, request) for request in requests if random.randint(1, 8) == 1),
        failures=(random.randint(0, 20),) if random.randint(1, 10) == 1 else (),
        rash=searches,
        losses=tuple([(random.randint(1, 25), random.choice((True, False))) for _ in range(random.randint(1, 4))])
        if losses
        else (),
    )


def _search(random: Random, name: str, max_num_seqs: int, prefixes: list[tuple[int, ...]]) -> Request:
    """A beam search: with five tokens of seven that end nothing, any of width 5 has as many sequences as it wants."""
    width = min(max_num_seqs, random.choice((1, 2, 3, 5)))
    max_tokens = random.choice((random.randint(1, 12), 16))
    params = SamplingParams(
        n=random.randint(1, width),
        seed=0,
        max_tokens=max_tokens,
        min_tokens=random.choice((0, 0, random.randint(0, max_tokens))),
        ignore_eos=random.choice((True, False, False)),
        stop_token_ids=random.choice(((), (), (1,))),
        logprobs=random.choice((None, None, 2)),
        prompt_logprobs=random.choice((None, None, None, None, 1)),
    )
    early: list[Any] = [False, True, "never"]
    return Request(
        name,
        _tokens(random, random.choice((1, 2, 5))) if random.random() < 0.7 else random.choice(prefixes),
        params,
        eos_ids=(EOS,),
        tenant=random.choice(("", "a", "b", "c")),
        priority=random.choice((0, 0, -2, 5, 100)),
        flex=random.random() < 0.5,
        beams=Beams(width, random.choice((1.0, 0.0, 2.0, -0.5)), random.choice(early)),
    )


def _request(random: Random, name: str, max_num_seqs: int, prefixes: list[tuple[int, ...]]) -> Request:
    prompt = random.choice((*prefixes, ())) + _tokens(random, random.choice((1, 2, 5, 12)))
    max_tokens = random.randint(1, 12)
    params = SamplingParams(
        n=min(max_num_seqs, random.choice((1, 1, 1, 2, 3, 8))),
        temperature=random.choice((0.0, 1.0, 1.0)),
        seed=random.randint(0, 3),
        max_tokens=max_tokens,
        min_tokens=random.choice((0, 0, random.randint(0, max_tokens))),
        ignore_eos=random.choice((True, False, False)),
        stop_token_ids=random.choice(((), (), (1,))),
        logprobs=random.choice((None, None, 2)),
        prompt_logprobs=random.choice((None, None, None, None, 1)),
    )
    return Request(
        name,
        prompt,
        params,
        eos_ids=(EOS,),
        cache_salt=random.choice((b"", b"", b"other")),
        num_public_tokens=max(0, sum(prompt) % (2 * len(prompt) + 1) - len(prompt)),  # none for half of them
        tenant=random.choice(("", "a", "b", "c")),
        weight=random.choice((1.0, 1.0, 0.5, 3.0)),
        priority=random.choice((0, 0, -2, 5, 100)),
        flex=random.random() < 0.25,
    )


def _abort(random: Random, request: Request) -> Abort:
    index = random.choice((None, random.randrange(request.params.n)))
    return Abort(random.randint(0, 25), request.id, index, random.choice((True, False)))


def _tokens(random: Random, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(VOCAB_SIZE) for _ in range(count))
