"""Knows: four published forms of request traces, as arrivals and lengths. Does not know: what is done with them.

Azure      .csv    TIMESTAMP (date and time), ContextTokens, GeneratedTokens
BurstGPT   .csv    Timestamp (seconds), Request tokens, Response tokens, ...
Mooncake   .jsonl  timestamp (milliseconds), input_length, output_length, hash_ids (one per 512 tokens of prompt)
LMCache    .jsonl  session_id, output_tokens, pre_gap_s (seconds after the session's last answer): agents at work

The agents' trace tells neither when sessions begin nor how long prompts are, so this is said here: a session begins
every `SESSION_EVERY_S`, with `SYSTEM_TOKENS` that all share and `TASK_TOKENS` of its own, and every turn's prompt is
the last one, the answer to it, and `RESULT_TOKENS` that a tool gave back.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from quire.errors import StartError


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace: seconds after its first one, and lengths in tokens. Prompts whose `hashes` begin alike
    begin with the same blocks of `HASHED_TOKENS`; without hashes they share nothing. `then` comes its own `at_s` after
    the end of this one's answer."""

    at_s: float
    num_prompt: int
    num_output: int
    hashes: tuple[int, ...] = ()
    then: Arrival | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """Where one form of trace keeps the three columns, and how its times are read as seconds."""

    time: str
    prompt: str
    output: str
    seconds: Callable[[str], float]


def _utc_seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


AZURE = Form("TIMESTAMP", "ContextTokens", "GeneratedTokens", _utc_seconds)
BURSTGPT = Form("Timestamp", "Request tokens", "Response tokens", float)
MOONCAKE = Form("timestamp", "input_length", "output_length", lambda text: float(text) / 1000)
HASHES = "hash_ids"
HASHED_TOKENS = 512
FORMS = (AZURE, BURSTGPT, MOONCAKE)
SESSION, ANSWER, GAP = "session_id", "output_tokens", "pre_gap_s"
SESSION_EVERY_S = 1.0
SYSTEM_TOKENS, TASK_TOKENS, RESULT_TOKENS = 2048, 512, 512
MAX_SESSION_BLOCKS = 4096


def read_trace(path: Path, num_requests: int | None = None) -> list[Arrival]:
    """The first `num_requests` arrivals (all if None) in order of time; rows without an answer are left out.

    A file of another form, or a row that cannot be read, raises `StartError` with its line.
    """
    arrivals: list[Arrival] = []
    turns: dict[str, list[tuple[float, int]]] = {}
    for line, row in islice(_rows(path), num_requests):
        if {SESSION, ANSWER, GAP} <= row.keys():
            turns.setdefault(row[SESSION], []).append(_turn(path, line, row))
            continue
        arrival = _arrival(path, line, row)
        if arrival.num_prompt > 0 and arrival.num_output > 0:
            arrivals.append(arrival)
    arrivals += [_session(number, each) for number, each in enumerate(turns.values())]
    if not arrivals:
        raise StartError("the trace holds no requests", got=str(path))
    arrivals.sort(key=lambda arrival: arrival.at_s)
    first_s = arrivals[0].at_s
    return [replace(one, at_s=one.at_s - first_s) for one in arrivals]


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".jsonl":
                for line, text in enumerate(file, 1):
                    yield line, _object(path, line, text)
            else:
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StartError("the trace cannot be read", got=str(path), hint=str(error)) from error


def _object(path: Path, line: int, text: str) -> dict[str, str]:
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise StartError("a line of the trace is not a JSON object", got=f"{path.name}, line {line}")
    return {name: str(value) for name, value in row.items()}


def _turn(path: Path, line: int, row: Mapping[str, str]) -> tuple[float, int]:
    try:
        return max(0.0, float(row[GAP])), max(1, int(row[ANSWER]))
    except ValueError as error:
        raise StartError("a row of the trace cannot be read", got=f"{path.name}, line {line}: {dict(row)}") from error


def _session(number: int, turns: list[tuple[float, int]]) -> Arrival:
    """Its first turn, with the others behind it."""
    num_prompt = SYSTEM_TOKENS + TASK_TOKENS
    arrivals: list[Arrival] = []
    for gap_s, num_output in turns:
        num_blocks = -(-num_prompt // HASHED_TOKENS)
        own = (1 + number) * MAX_SESSION_BLOCKS
        num_common = SYSTEM_TOKENS // HASHED_TOKENS
        hashes = tuple(block if block < num_common else own + block for block in range(num_blocks))
        arrivals.append(Arrival(gap_s, num_prompt, num_output, hashes))
        num_prompt += num_output + RESULT_TOKENS
    then: Arrival | None = None
    for arrival in reversed(arrivals[1:]):
        then = replace(arrival, then=then)
    return replace(arrivals[0], at_s=number * SESSION_EVERY_S, then=then)


def turns_of(arrival: Arrival) -> Iterator[Arrival]:
    """It, and those that come after it."""
    yield arrival
    while arrival.then is not None:
        arrival = arrival.then
        yield arrival


def num_turns(arrival: Arrival) -> int:
    """How many requests come of it."""
    return sum(1 for _ in turns_of(arrival))


def longest(arrivals: Iterable[Arrival]) -> int:
    """Tokens of the longest sequence."""
    return max(one.num_prompt + one.num_output for first in arrivals for one in turns_of(first))


def _arrival(path: Path, line: int, row: Mapping[str, str]) -> Arrival:
    form = next((form for form in FORMS if {form.time, form.prompt, form.output} <= row.keys()), None)
    if form is None:
        raise StartError(
            "the trace has columns of no known form",
            got=f"{path.name}, line {line}: {', '.join(map(str, row))}",
            allowed="; ".join([*(f"{form.time}, {form.prompt}, {form.output}" for form in FORMS), "session_id, ..."]),
        )
    try:
        hashes = tuple(map(int, json.loads(row.get(HASHES) or "[]")))
        return Arrival(form.seconds(row[form.time]), int(row[form.prompt]), int(row[form.output]), hashes)
    except (TypeError, ValueError) as error:
        raise StartError("a row of the trace cannot be read", got=f"{path.name}, line {line}: {dict(row)}") from error
