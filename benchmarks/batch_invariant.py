"""What it costs that no answer depends on what is computed beside it, and whether that holds.

    python benchmarks/batch_invariant.py [--device torch:cpu] [--model FOLDER] [--dtype bfloat16] [--json F]

Steps of three kinds are run with `--batch-invariant` and without, in turn: one sequence, `--batch` sequences, a prompt
of `--prompt` tokens. The medians and their ratio are told. Then `--requests` seeded requests are answered alone and all
together: ids and log probabilities must be the same bits with the mode, and are counted without it. Exit code 1 where
the mode does not hold. On a GPU say --device cuda; on the CPU the plain torch ops stand for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from quire.engine.build import Built, build_engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.request import Request, SamplingParams
from quire.settings import EngineSettings
from quire.step import Draw, Step, Work

BLOCK = 16
GREEDY = SamplingParams(temperature=0.0, seed=0)
HELD = 64  # tokens before those that are timed


def build(args: argparse.Namespace, invariant: bool, folder: Path) -> Built:
    settings = EngineSettings(
        device=args.device,
        dtype=args.dtype,
        batch_invariant=invariant,
        max_num_seqs=max(args.batch, args.requests),
        max_num_batched_tokens=max(args.prompt, 64),
        max_model_len=args.prompt + 256,
        kv_cache_memory_bytes=args.kv_bytes,
        prefix_cache=False,
        itl_target=0.0,
    )
    return build_engine(plan(settings, probe(), read_model_spec(folder)), folder)


def steps(args: argparse.Namespace) -> dict[str, Step]:
    """By name: what is timed."""
    return {
        "1 sequence": step([(HELD, 1)]),
        f"{args.batch} sequences": step([(HELD, 1)] * args.batch),
        f"a prompt of {args.prompt}": step([(0, args.prompt)]),
    }


def step(lengths: list[tuple[int, int]]) -> Step:
    works, first = [], 0
    for number, (held, new) in enumerate(lengths):
        end = first + -(-(held + new) // BLOCK)
        tokens = [1 + place % 200 for place in range(held + new)]
        works.append(
            Work(number, tokens[held:], held, list(range(first, end)), Draw(GREEDY, (0,), tokens, len(tokens)))
        )
        first = end
    return Step(0, tuple(works))


def timed(engines: dict[bool, Built], what: Step, seconds: float) -> dict[bool, float]:
    """Median seconds of a step, both modes in turn; what was drawn has come back to the host."""
    taken: dict[bool, list[float]] = {mode: [] for mode in engines}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for mode, built in engines.items():
            begin = time.perf_counter()
            built.engine.runner.run(what)
            if rounds:
                taken[mode].append(time.perf_counter() - begin)
        rounds += 1
    return {mode: statistics.median(times) for mode, times in taken.items()}


def requests(args: argparse.Namespace) -> list[Request]:
    return [
        Request(
            f"r{number}",
            tuple(1 + (number * 31 + place * 7) % 200 for place in range(5 + 13 * number % args.prompt)),
            SamplingParams(temperature=0.8, seed=number, max_tokens=args.tokens, logprobs=0, ignore_eos=True),
        )
        for number in range(args.requests)
    ]


def answers(built: Built, asked: list[Request], together: bool) -> dict[str, list[Any]]:
    """Ids and log probabilities of every request, one after the other or all at once."""
    told: dict[str, list[Any]] = {}
    for group in [asked] if together else [[each] for each in asked]:
        for each in group:
            built.engine.add(each, 0.0)
        while built.engine.has_work:
            report = built.engine.step(0.0)
            for delta in report.deltas if report is not None else ():
                told.setdefault(delta.request_id, []).extend(zip(delta.tokens, delta.logprobs, strict=True))
    return told


def report(args: argparse.Namespace) -> dict[str, Any]:
    folder = Path(args.model) if args.model else BUNDLED
    engines = {mode: build(args, mode, folder) for mode in (False, True)}
    cost = {name: timed(engines, what, args.seconds) for name, what in steps(args).items()}
    asked = requests(args)
    equal = {}
    for mode, built in engines.items():
        alone, together = answers(built, asked, False), answers(built, asked, True)
        equal[mode] = sum(alone[each.id] == together[each.id] for each in asked)
    return {
        "device": engines[True].isa,
        "steps": {
            name: {
                "plain_ms": 1e3 * times[False],
                "invariant_ms": 1e3 * times[True],
                "ratio": times[True] / times[False],
            }
            for name, times in cost.items()
        },
        "requests": len(asked),
        "identical_plain": equal[False],
        "identical_invariant": equal[True],
        "met": equal[True] == len(asked),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="torch:cpu")
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each kind of step")
    parser.add_argument("--kv-bytes", type=int, default=256 * 2**20)
    parser.add_argument("--json", help="file to write the result to")
    return parser.parse_args()


def main() -> int:
    args = parse()
    result = report(args)
    print(f"device {result['device']}")
    for name, row in result["steps"].items():
        print(f"{name:<20} {row['plain_ms']:>9.2f} ms   invariant {row['invariant_ms']:>9.2f} ms   {row['ratio']:.2f}x")
    count = result["requests"]
    print(f"without the mode {result['identical_plain']} of {count} answers are the same bits alone and in company")
    verdict = "met" if result["met"] else "MISSED"
    print(f"with the mode    {result['identical_invariant']} of {count}: {verdict}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
