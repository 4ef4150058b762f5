"""What structured output costs those who use it and those beside them: steps of an engine, timed.

Knows: an engine with a grammar process, and schemas that are meant to be too much. Does not know: the command line, or
what grammars accept (`structured.py`).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from quire import SamplingParams, StructuredOutputsParams
from quire.engine.build import build_engine
from quire.engine.grammar_process import ProcessKeeper
from quire.engine.grammars import compile_with
from quire.errors import QuireError
from quire.hardware import probe
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.request import Constraint, Request
from quire.settings import EngineSettings
from quire.structured.source import grammar_of

FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 40},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def form_grammar(schema: Any) -> str:
    return grammar_of(StructuredOutputsParams(json=schema))


Figures = dict[str, Any]


def shares(seconds: list[float]) -> Figures:
    """In milliseconds."""
    ranked = sorted(seconds)
    places = (("p50", 0.5), ("p99", 0.99), ("largest", 1.0))
    return {f"{name}_ms": round(1e3 * ranked[min(int(p * len(ranked)), len(ranked) - 1)], 2) for name, p in places}


class Load:
    """An engine with a grammar process, and requests of a given length that run together."""

    def __init__(self, folder: Path, num_seqs: int, quantization: str) -> None:
        self.spec = read_model_spec(folder)
        settings = EngineSettings(
            max_num_seqs=num_seqs, max_model_len=1024, quantization=quantization, prefix_cache=False
        )
        self.built = build_engine(plan(settings, probe(), self.spec), folder, keep=ProcessKeeper)
        self.engine = self.built.engine
        self.num_seqs = num_seqs
        self.num_tokens = 0
        self._numbers = 0

    def start(self, constraint: Constraint | None, max_tokens: int) -> None:
        """All requests, up to where all of them decode."""
        for number in range(self.num_seqs):
            self._numbers += 1
            params = SamplingParams(temperature=1.0, seed=number, max_tokens=max_tokens)
            prompt = tuple(3 + (number * 31 + place * 7) % 1000 for place in range(16))
            ends = self.spec.eos_ids if constraint is not None else ()
            self.engine.add(Request(str(self._numbers), prompt, params, ends, constraint=constraint), 0.0)
        for _ in range(8):
            self.engine.advance(0.0)

    def steps(self, num_steps: int) -> list[float]:
        """Seconds of each step; `num_tokens` counts what they brought, more than a row each where tokens are forced."""
        seconds = []
        self.num_tokens = 0
        for _ in range(num_steps):
            start = time.perf_counter()
            deltas = self.engine.advance(0.0) or ()
            seconds.append(time.perf_counter() - start)
            assert len(deltas) == self.num_seqs, "an answer ended too early"
            self.num_tokens += sum([len(delta.tokens) for delta in deltas])
        return seconds

    def stop(self) -> None:
        for number in range(self._numbers + 1):
            self.engine.abort(str(number))


def tokens(folder: Path, quantization: str, num_steps: int, rounds: int) -> Figures:
    """Alternating rounds with a schema and without, the order turned round each time; seconds a token of each."""
    load = Load(folder, 32, quantization)
    constraint = Constraint(form_grammar(FORM))
    compile_with(load.built.grammars, constraint)
    found: dict[str, list[float]] = {"without": [], "with": []}
    num_tokens = dict.fromkeys(found, 0)
    order = [("without", None), ("with", constraint)]
    for _ in range(rounds):
        for name, held in order:
            load.start(held, 800)
            found[name] += load.steps(num_steps)
            num_tokens[name] += load.num_tokens
            load.stop()
        order.reverse()
    load.built.grammars.close()
    load.built.device.close()
    middles = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in found.items()}
    each = {name: middles[name] * len(found[name]) / num_tokens[name] for name in found}
    return {
        "quantization": quantization,
        "steps of each": len(found["with"]),
        **{f"{name} a schema: middle step of 32, ms": round(1e3 * middle, 2) for name, middle in middles.items()},
        **{f"{name} a schema: tokens a row and step": num_tokens[name] / 32 / len(found[name]) for name in found},
        "time a step, with / without": round(middles["with"] / middles["without"], 4),
        "time a token, with / without": round(each["with"] / each["without"], 4),
    }


def hostile(folder: Path, quantization: str, num_steps: int, rounds: int, num_owners: int) -> Figures:
    """16 streams, alternately alone and beside clients that send one hostile schema after the other, 20 ms apart.

    Each of `num_owners` has a purse of his own and waits for one answer before he sends the next.
    """
    load = Load(folder, 16, quantization)
    grammars = load.built.grammars
    compile_with(grammars, Constraint(form_grammar({"const": 0})))
    hostile_forms = hostile_schemas()
    found: dict[str, list[float]] = {"alone": [], "beside": []}
    answers: Counter[str] = Counter()
    took: list[float] = []
    order = list(found)
    for _ in range(rounds):
        for name in order:
            load.start(None, 900)
            stop = threading.Event()
            senders = [
                threading.Thread(target=_send, args=(grammars, hostile_forms, f"{number}", stop, answers, took))
                for number in range(num_owners if name == "beside" else 0)
            ]
            for sender in senders:
                sender.start()
            found[name] += load.steps(num_steps)
            stop.set()
            for sender in senders:
                sender.join()
            load.stop()
        order.reverse()
    grammars.close()
    load.built.device.close()
    steps = {name: {"mean_ms": round(1e3 * sum(each) / len(each), 2), **shares(each)} for name, each in found.items()}
    alone, beside = steps["alone"], steps["beside"]
    growth = {name: f"{100 * (beside[name] / alone[name] - 1):+.1f} %" for name in alone}
    return {
        "quantization": quantization,
        "steps of each": len(found["alone"]),
        "a step of 16": steps,
        "growth": growth,
        "owners that send": num_owners,
        "answers": dict(answers),
        "time to an answer": {"mean_ms": round(1e3 * sum(took) / len(took), 1), **shares(took)} if took else {},
    }


def hostile_schemas() -> list[str]:
    chance = random.Random(1)
    made = []
    for number in range(1000):
        kind = number % 4
        salt = chance.randrange(10**6)
        if kind == 0:
            schema: Any = {
                "type": "object",
                "patternProperties": {
                    f"^(a|b){{{count}}}.*x{count}{salt}$": {"type": "string"} for count in range(1, 200)
                },
            }
        elif kind == 1:
            schema = {"allOf": [{"type": "string", "pattern": f".*a.{{{count}}}b{salt}"} for count in range(10, 22)]}
        elif kind == 2:
            schema = {"type": "integer", "multipleOf": 90_001 + salt}
        else:
            schema = {"type": "object", "properties": {f"p{salt}_{i}": {"type": "string"} for i in range(4000)}}
        made.append(form_grammar(schema))
    return made


def _send(
    grammars: Any, forms: list[str], owner: str, stop: threading.Event, answers: Counter[str], took: list[float]
) -> None:
    while forms and not stop.wait(0.02):
        start = time.perf_counter()
        try:
            compile_with(grammars, Constraint(forms.pop(0), owner))
            answers["compiled"] += 1
        except QuireError as error:
            answers[error.message[:70]] += 1
        took.append(time.perf_counter() - start)
