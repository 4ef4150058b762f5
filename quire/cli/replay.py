"""`quire replay`: requests of a log asked again, and compared bit for bit.

Knows: the log's file, how a difference is told. Does not know: how a request is asked (`replay_asking.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from quire.cli.replay_asking import Again, Asker, Offline, OverHttp
from quire.errors import InvalidSetting
from quire.server.logged import LoggedJob, LoggedRequest, LoggedSample, decode
from quire.settings import EngineSettings

AT_ONCE = 32  # lines in one go: they are asked together


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sample asked again. `outcome` is identical, different, failed or empty; `at` the first token that differs.

    `receipt` are the parts that differ, as (name, then, now).
    """

    id: str
    answer: str
    prompt: int
    sample: int
    outcome: str
    num_tokens: int
    at: int | None = None
    why: str = ""
    receipt: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """Whom to ask: a server, or a model in this process; without either, the model that the log names."""

    url: str | None = None
    api_key: str | None = None
    model: str | None = None


def replay(path: Path, wanted: str | None, where: Where, settings: EngineSettings, as_json: bool) -> int:
    """Print a line a sample and a summary; 0 if all is identical, 1 if not. Raises `StartError`, `InvalidSetting`."""
    verdicts: list[Verdict] = []
    for verdict in judged(read(path, wanted), where, settings):
        verdicts.append(verdict)
        if not as_json:
            print(line_of(verdict), flush=True)
    if not verdicts:
        raise InvalidSetting("the log holds no such request", got=wanted or str(path), hint="--id takes x-request-id.")
    if as_json:
        print(json.dumps({"identical": is_identical(verdicts), "samples": [asdict(each) for each in verdicts]}))
    else:
        print("\n".join(summary(verdicts)))
    return 0 if is_identical(verdicts) else 1


def read(path: Path, wanted: str | None) -> Iterator[LoggedJob]:
    """The log's jobs in order, those of one id if `wanted`. A line that cannot be read is told on stderr."""
    try:
        file = path.open("rb")
    except OSError as problem:
        raise InvalidSetting("the request log cannot be read", got=str(path), hint=problem.strerror) from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                job = decode(line)
            except ValueError as problem:  # msgspec's errors are ValueErrors
                print(f"line {number} is no request: {problem}", file=sys.stderr)
                continue
            if wanted is None or wanted in (job.id, job.answer):
                yield job


def judged(jobs: Iterator[LoggedJob], where: Where, settings: EngineSettings) -> Iterator[Verdict]:
    """Ask again in batches; a new engine wherever the log's servers were started with other options."""
    asker: Asker | None = None
    begun: object = None
    try:
        for batch in batches(jobs):
            kind = None if where.url else (batch[0].folder, batch[0].options)
            if asker is None or kind != begun:
                if asker is not None:
                    asker.close()
                asker, begun = open_asker(batch[0], where, settings), kind
            yield from compare_batch(batch, asker)
    finally:
        if asker is not None:
            asker.close()


def batches(jobs: Iterator[LoggedJob]) -> Iterator[list[LoggedJob]]:
    """Up to AT_ONCE successive jobs of one kind of server."""
    batch: list[LoggedJob] = []
    for job in jobs:
        if batch and (len(batch) == AT_ONCE or (job.folder, job.options) != (batch[0].folder, batch[0].options)):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def open_asker(job: LoggedJob, where: Where, settings: EngineSettings) -> Asker:
    """Who answers for the server that wrote `job`."""
    return OverHttp(where.url, where.api_key) if where.url else Offline(job, where.model, settings)


def compare_batch(batch: list[LoggedJob], asker: Asker) -> Iterator[Verdict]:
    """A verdict for each sample of each prompt."""
    told = [each for job in batch for each in job.requests]
    again = iter(asker.ask(told))
    for job in batch:
        parts = tuple(job.whole_receipt.differences(asker.receipt))
        for number, each in enumerate(job.requests):
            yield from compare(job, number, each, next(again), parts)


def compare(
    job: LoggedJob, number: int, then: LoggedRequest, now: Again, parts: tuple[tuple[str, str, str], ...]
) -> Iterator[Verdict]:
    """One prompt's samples, then and now."""
    for index, sample in enumerate(then.samples):
        count = len(sample.ids)
        if isinstance(now, str):
            outcome, at, why = "failed", None, now
        elif not count and not then.prompt_logprobs:
            outcome, at, why = "empty", None, f"nothing had been told ({job.ended})"
        else:
            at, why = difference(sample, now.samples[index])
            if not why and index == 0 and now.prompt_logprobs:
                why = _prompt_difference(then.prompt_logprobs, now.prompt_logprobs)
            outcome = "different" if why else "identical"
        yield Verdict(job.id, job.answer, number, index, outcome, count, at, why, parts)


def difference(then: LoggedSample, now: LoggedSample) -> tuple[int | None, str]:
    """(first token that differs, how); (None, "") if every bit is the same."""
    pairs = zip(then.ids, now.ids, then.logprobs, now.logprobs, strict=False)
    unlike = [
        place for place, (id, id_now, logprob, value) in enumerate(pairs) if id != id_now or _differ(logprob, value)
    ]
    ids_end = min(len(then.ids), len(now.ids))
    other = next((place for place in range(ids_end) if then.ids[place] != now.ids[place]), None)
    if other is None and len(now.ids) < len(then.ids):
        unlike, other = [*unlike, ids_end], ids_end
    if not unlike:
        is_same_end = then.finish is None or then.finish == now.finish
        return (None, "") if is_same_end else (ids_end, f"the end was {then.finish}, is {now.finish or 'not here'}")
    first = unlike[0]
    if first == other:
        return first, f"id was {then.ids[first]}, is {now.ids[first] if first < len(now.ids) else now.finish}"
    ids = "all ids are the same" if other is None else f"ids differ from token {other}"
    return first, f"logprob was {then.logprobs[first]!r}, is {now.logprobs[first]!r}; {ids}"


def _differ(then: float | None, now: float | None) -> bool:
    """Whether two logprobs are not the same bits; what was not logged differs from nothing."""
    return then is not None and then != now


def _prompt_difference(then: tuple[float, ...], now: tuple[float, ...]) -> str:
    place = next((place for place, pair in enumerate(zip(then, now, strict=False)) if pair[0] != pair[1]), None)
    return "" if place is None else f"prompt token {place + 1}: logprob was {then[place]!r}, is {now[place]!r}"


def line_of(verdict: Verdict) -> str:
    """A verdict for people."""
    where = f"{verdict.id} prompt {verdict.prompt} sample {verdict.sample}"
    if verdict.outcome == "different":
        names = ", ".join(name for name, _, _ in verdict.receipt)
        at = "" if verdict.at is None else f"token {verdict.at} of {verdict.num_tokens}: "
        cause = f"the receipt differs in {names}" if names else "the receipt is the same"
        return f"DIFFERENT  {where}: {at}{verdict.why}; {cause}"
    if verdict.outcome == "identical":
        return f"identical  {where}: {verdict.num_tokens} tokens"
    return f"{'FAILED' if verdict.outcome == 'failed' else verdict.outcome:<9}  {where}: {verdict.why}"


def summary(verdicts: list[Verdict]) -> list[str]:
    """Counts, and every part of the receipts that differs, once."""
    outcomes = [verdict.outcome for verdict in verdicts]
    counts = [
        f"{outcomes.count(name)} {name}" for name in ("identical", "different", "failed", "empty") if name in outcomes
    ]
    parts = sorted({part for verdict in verdicts for part in verdict.receipt})
    return [
        ", ".join(counts),
        *(f"receipt: {name} was {then or 'absent'}, is {now or 'absent'}" for name, then, now in parts),
    ]


def is_identical(verdicts: list[Verdict]) -> bool:
    """Whether nothing differed and nothing failed."""
    return all(verdict.outcome in ("identical", "empty") for verdict in verdicts)
