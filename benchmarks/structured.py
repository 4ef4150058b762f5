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
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llguidance
from structured_load import Figures, form_grammar, hostile, shares, tokens

import quire
from quire import LLM, SamplingParams, StructuredOutputsParams
from quire.engine.grammar_process import ProcessKeeper
from quire.engine.grammars import compile_with
from quire.errors import QuireError
from quire.model_spec import read_model_spec
from quire.request import Constraint
from quire.structured.grammar import compile_grammar
from quire.structured.matcher import Matcher
from quire.structured.vocabulary import Vocabulary
from quire.text.tokenizer import Tokenizer

BUNDLED = Path(quire.__file__).parent / "bundled"


def schemas(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            yield entry["id"], entry["schema"]


def vocabulary(folder: Path = BUNDLED) -> Vocabulary:
    spec = read_model_spec(folder)
    return Vocabulary(Tokenizer.from_folder(folder), spec.vocab_size, spec.eos_ids)


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
