"""Typed requests: `python fuzz/typed.py SECONDS FINDINGS`. Whatever stands in a parameter, it is refused by one of our
errors or served to its end by a real scheduler over a runner that checks every slot it reads.

Knows: parameters and their types. Does not know: JSON, HTTP (`run.py` sends those).
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from quire.beams import Beams
from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.engine import Engine
from quire.engine.messages import Submit
from quire.engine.wire import Decoder, encode
from quire.errors import QuireError
from quire.request import Request
from quire.runner.fake import FakeRunner
from quire.sampling_params import RepetitionDetectionParams, SamplingParams
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler

VOCAB, BLOCK, NUM_BLOCKS, CONTEXT, NUM_SEQS = 64, 16, 24, 128, 8
MAX_STEPS = 2000
ROUND = 200
Values = Mapping[str, Any]

EDGES = st.sampled_from(
    [0, 1, -1, 2, 5, 16, 20, 21, 64, 128, 129, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**40]
)
NUMBERS = st.one_of(EDGES, st.integers(-3, 40), st.floats(-3, 3), st.floats())
TEXTS = st.text(max_size=6)
IDS = st.lists(st.one_of(st.integers(0, VOCAB - 1), EDGES), max_size=4)
ANY_IDS = st.lists(st.integers(-1, 2**31), max_size=4)  # the edge has seen that they are ids of some model
KNOWN = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3).map(tuple)  # made by the front itself
REPEATS = st.fixed_dictionaries({}, optional={
    "max_pattern_size": NUMBERS, "min_pattern_size": NUMBERS, "min_count": NUMBERS,
})  # fmt: skip
ANYTHING = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.lists(st.one_of(NUMBERS, TEXTS), max_size=3))
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(1, 9), "temperature": st.floats(0, 2), "top_p": st.floats(0.01, 1), "top_k": st.integers(-1, 70),
    "min_p": st.floats(0, 1), "presence_penalty": st.floats(-2, 2), "frequency_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0.1, 10), "seed": st.integers(-(2**63), 2**63 - 1),
    "stop": st.lists(TEXTS, max_size=3),
    "logit_bias": st.dictionaries(st.integers(0, VOCAB), st.floats(-100, 100), max_size=3), "stop_token_ids": IDS,
    "max_tokens": st.integers(1, 140), "min_tokens": st.integers(0, 9), "logprobs": st.integers(0, 20),
    "prompt_logprobs": st.integers(0, 20), "bad_words": st.lists(TEXTS, max_size=2), "allowed_token_ids": IDS,
    "ignore_eos": st.booleans(), "truncate_prompt_tokens": st.integers(-1, 9),
}  # fmt: skip
NAMES = sorted({field.name for field in fields(SamplingParams)} - {"structured_outputs", "logits_processors"})
PARAMS = st.one_of(
    st.fixed_dictionaries({}, optional=GOOD),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3),
    st.builds(lambda good, more: {**good, **more}, st.fixed_dictionaries({}, optional=GOOD),
              st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=1)),
)  # fmt: skip
REQUESTS = st.fixed_dictionaries({
    "params": PARAMS,
    "prompt": st.one_of(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=130), ANY_IDS),
    "repetition": st.one_of(st.none(), REPEATS),
    "beams": st.one_of(st.none(), st.none(), st.tuples(NUMBERS, NUMBERS, st.sampled_from([True, False, "never", 3]))),
    "more": st.fixed_dictionaries({}, optional={
        "tenant": TEXTS, "weight": NUMBERS, "priority": NUMBERS, "flex": st.booleans(), "cache_salt": TEXTS,
        "bad_sequences": st.lists(KNOWN, max_size=2).map(tuple), "eos_ids": KNOWN,
    }),
    "leaves_after": st.one_of(st.none(), st.integers(0, 5)),
})  # fmt: skip


def made(number: int, values: Values) -> Request | None:
    """The request, or None where it is refused."""
    try:
        params = dict(values["params"])
        if values["repetition"] is not None:
            params["repetition_detection"] = RepetitionDetectionParams(**values["repetition"])
        params = {"seed": 1, "max_tokens": 5, **params}
        beams = None if values["beams"] is None else Beams(*values["beams"])
        return Request(f"r{number}", tuple(values["prompt"]), SamplingParams(**params), beams=beams, **values["more"])
    except QuireError:
        return None


def over_the_wire(request: Request) -> Request:
    (message,) = Decoder().feed(encode(Submit(request)))
    assert isinstance(message, Submit)
    return message.request


def serve(asked: list[Values]) -> None:
    """All of them at once, in tight memory: everyone is refused or ends, and nothing is left."""
    limits = SchedulerLimits(NUM_SEQS, 32, CONTEXT, BLOCK, VOCAB)
    scheduler = Scheduler(limits, BlockPool(NUM_BLOCKS), PrefixIndex(BLOCK), "fair")
    engine, open_ones, leaving = Engine(scheduler, FakeRunner(VOCAB, BLOCK)), set(), {}
    for number, values in enumerate(asked):
        request = made(number, values)
        if request is None:
            continue
        try:
            engine.add(over_the_wire(request), 0.0)
        except QuireError:
            continue
        open_ones.add(request.id)
        if values["leaves_after"] is not None:
            leaving[request.id] = values["leaves_after"]
    for step in range(MAX_STEPS):
        for name in [name for name, after in leaving.items() if after <= step and name in open_ones]:
            engine.abort(name)
            open_ones.discard(name)
        if not engine.has_work:
            break
        engine.advance(float(step))
    assert not engine.has_work, "somebody is never served"
    assert scheduler.cache_use().num_used == 0, "blocks are left"


def run_for(seconds: float, findings: Path, check: Callable[[list[Values]], None] = serve) -> int:
    """Rounds of examples until the time is up; the first that fails is written down. The number of examples, or -1."""
    end, num, number = time.monotonic() + seconds, 0, 0
    last: list[Any] = []

    def noted(asked: list[Values]) -> None:
        nonlocal num
        num += 1
        last[:] = [asked]
        check(asked)

    while time.monotonic() < end:
        number += 1
        one_round = settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                             phases=(Phase.generate, Phase.shrink))  # fmt: skip
        try:
            seed(number + 1000 * os.getpid())(one_round(given(st.lists(REQUESTS, min_size=1, max_size=6))(noted)))()
        except Exception:  # noqa: BLE001 - that is what is looked for
            findings.mkdir(parents=True, exist_ok=True)
            path = findings / "typed.txt"
            path.write_text(f"serve({last[0]!r})\n\n{traceback.format_exc()}", encoding="utf-8", errors="replace")
            traceback.print_exc(limit=-3)
            print(f"reproduced by {path}", file=sys.stderr)
            return -1
    return num


if __name__ == "__main__":
    count = run_for(float(sys.argv[1]), Path(sys.argv[2]))
    print(f"{count} examples")
    sys.exit(1 if count < 0 else 0)
