"""Figures of structured output: coverage, validity, and what it costs those who use it and those beside them.

    python benchmarks/structured.py coverage SCHEMAS...      against llguidance used directly; time to compile
    python benchmarks/structured.py suite FOLDER             JSON Schema's own tests: what is accepted and refused
    python benchmarks/structured.py validity SCHEMAS...      answers of the bundled model and of random weights
    python benchmarks/structured.py tokens MODEL             time per token at batch 32, with a schema and without
    python benchmarks/structured.py hostile MODEL            inter-token time of 16 streams beside hostile schemas

SCHEMAS are files of lines {"id": ..., "schema": ...}. Needs the test extra (jsonschema) for validity. `--json FILE` has
the figures put into that file, under the name of what was measured, beside those that are there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llguidance

import quire
from quire import LLM, SamplingParams, StructuredOutputsParams
from quire.engine.build import build_engine
from quire.engine.grammar_process import ProcessKeeper
from quire.engine.grammars import compile_with
from quire.errors import QuireError
from quire.hardware import probe
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.request import Constraint, Request
from quire.settings import EngineSettings
from quire.structured.grammar import compile_grammar
from quire.structured.matcher import Matcher
from quire.structured.source import grammar_of
from quire.structured.vocabulary import Vocabulary
from quire.text.tokenizer import Tokenizer

BUNDLED = Path(quire.__file__).parent / "bundled"
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


def schemas(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            yield entry["id"], entry["schema"]


def vocabulary(folder: Path = BUNDLED) -> Vocabulary:
    spec = read_model_spec(folder)
    return Vocabulary(Tokenizer.from_folder(folder), spec.vocab_size, spec.eos_ids)


def form_grammar(schema: Any) -> str:
    return grammar_of(StructuredOutputsParams(json=schema))


Figures = dict[str, Any]


def shares(seconds: list[float]) -> Figures:
    """In milliseconds."""
    ranked = sorted(seconds)
    places = (("p50", 0.5), ("p99", 0.99), ("largest", 1.0))
    return {f"{name}_ms": round(1e3 * ranked[min(int(p * len(ranked)), len(ranked) - 1)], 2) for name, p in places}


def coverage(paths: list[Path], every: int) -> Figures:
    words = vocabulary()
    keeper = ProcessKeeper(BUNDLED, words.vocab_size, words.ends, 1)
    compile_with(keeper, Constraint(form_grammar({"const": 0})))
    counts: Counter[str] = Counter()
    direct_s, ours_s, process_s = [], [], []
    reasons: Counter[str] = Counter()
    for number, (_, schema) in enumerate(schemas(paths)):
        start = time.perf_counter()
        text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        direct = not llguidance.LLMatcher(words.library, text, log_level=0).is_error()
        direct_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        try:
            compile_grammar(form_grammar(schema), words)
            ours = True
        except QuireError as error:
            ours = False
            reasons[error.message[:60]] += 1
        ours_s.append(time.perf_counter() - start)
        counts[f"direct {direct}, here {ours}"] += 1
        if ours and number % every == 0:
            start = time.perf_counter()
            compile_with(keeper, Constraint(form_grammar(schema), str(number)))
            process_s.append(time.perf_counter() - start)
    keeper.close()
    return {
        "compiled": dict(counts),
        "llguidance directly, without a mask": shares(direct_s),
        "here, first mask included": shares(ours_s),
        f"here, trial in its process, {len(process_s)} schemas": shares(process_s),
        "refused here": dict(reasons.most_common(20)),
    }


def suite(folder: Path) -> Figures:
    """A text is accepted where the matcher takes all its tokens and could end; both sides get the same texts."""
    words = vocabulary()
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            direct = llguidance.LLMatcher(
                words.library, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(group["schema"])), log_level=0
            )
            try:
                ours = compile_grammar(form_grammar(group["schema"]), words)
            except QuireError:
                ours = None
            counts[f"schemas: direct {not direct.is_error()}, here {ours is not None}"] += 1
            for test in group["tests"] if ours is not None and not direct.is_error() else []:
                tokens = words.encode(json.dumps(test["data"], ensure_ascii=False))
                copy = direct.deep_copy()
                by_direct = copy.try_consume_tokens(tokens) == len(tokens) and copy.is_accepting()
                counts[
                    f"{'valid' if test['valid'] else 'invalid'}: direct {by_direct}, here {accepts(ours, tokens)}"
                ] += 1
    return dict(sorted(counts.items()))


def accepts(grammar: Any, tokens: list[int]) -> bool:
    matcher = Matcher(grammar)
    try:
        matcher.accept(tokens)
    except QuireError:
        return False
    return matcher.accepts


def validity(paths: list[Path], every: int, max_tokens: int) -> Figures:
    figures: Figures = {"max_tokens": max_tokens}
    with tempfile.TemporaryDirectory() as folder:
        random_weights(Path(folder))
        for name, model, temperature in (
            ("bundled model", None, 0.0),
            ("bundled model", None, 1.0),
            ("random weights", folder, 2.0),
        ):
            llm = LLM(model, max_num_seqs=32)
            key = f"{name}, temperature {temperature:g}"
            figures[key] = _validity(llm, paths, every, max_tokens, temperature)
            print(key, figures[key], flush=True)
    return figures


def _validity(llm: LLM, paths: list[Path], every: int, max_tokens: int, temperature: float) -> Figures:
    import jsonschema

    asked = []
    for number, (key, schema) in enumerate(schemas(paths)):
        if number % every == 0:
            try:
                compile_with(llm.engine.grammars, Constraint(form_grammar(schema)))
            except QuireError:
                continue
            asked.append((key, schema))
    params = [
        SamplingParams(
            temperature=temperature,
            seed=number,
            max_tokens=max_tokens,
            structured_outputs=StructuredOutputsParams(json=schema),
        )
        for number, (_, schema) in enumerate(asked)
    ]
    prompt = llm.chat_prompt([{"role": "user", "content": "Write an example as JSON."}])
    counts: Counter[str] = Counter()
    for (key, schema), answer in zip(asked, llm.generate([prompt] * len(asked), params), strict=True):
        output = answer.outputs[0]
        counts[f"ended by {output.finish_reason}"] += 1
        if output.finish_reason == "stop":
            try:
                jsonschema.validate(json.loads(output.text), schema)
                counts["valid"] += 1
            except (ValueError, jsonschema.ValidationError) as error:
                counts["INVALID"] += 1
                print(f"  {key}: {str(error)[:200]!r} in {output.text[:200]!r}")
            except jsonschema.SchemaError:
                counts["schema that jsonschema refuses"] += 1
    llm.close()
    return {"schemas": len(asked), **counts, "share that finishes": round(counts["ended by stop"] / len(asked), 3)}


def random_weights(folder: Path) -> None:
    """The bundled model's shape and tokenizer, its matrices drawn anew."""
    import numpy as np

    shutil.copytree(BUNDLED, folder, dirs_exist_ok=True)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    generator = np.random.default_rng(1)
    for name, entry in json.loads(bytes(data[8 : 8 + size])).items():
        if name != "__metadata__" and len(entry["shape"]) == 2:
            begin, end = (8 + size + place for place in entry["data_offsets"])
            values = (0.05 * generator.standard_normal((end - begin) // 2)).astype(np.float32)
            data[begin:end] = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    path.write_bytes(data)


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "suite", "validity", "tokens", "hostile"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1, help="use every n-th schema")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--owners", type=int, default=1, help="clients that send hostile schemas")
    parser.add_argument("--json", type=Path, help="the file that the figures go into")
    asked = parser.parse_args()
    if asked.what == "coverage":
        figures = coverage(asked.paths, asked.every)
    elif asked.what == "suite":
        figures = suite(asked.paths[0])
    elif asked.what == "validity":
        figures = validity(asked.paths, asked.every, asked.max_tokens)
    elif asked.what == "tokens":
        figures = tokens(asked.paths[0], asked.quantization, asked.steps, asked.rounds)
    else:
        figures = hostile(asked.paths[0], asked.quantization, asked.steps, asked.rounds, asked.owners)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    if asked.json is not None:
        held = json.loads(asked.json.read_text(encoding="utf-8")) if asked.json.exists() else {}
        text = json.dumps({**held, asked.what: figures}, indent=2, ensure_ascii=False)
        asked.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
