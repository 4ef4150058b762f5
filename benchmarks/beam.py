"""KV memory that beams save by sharing the blocks of their common past, on real prompts.

    python benchmarks/beam.py [MODEL] [--prompts FILE] [--widths 2 4 6 8] [--requests 8] [--max-tokens 128]

FILE is ShareGPT's JSON; a conversation's first turn is a prompt. One request at a time, prompts of 128 to 500 tokens,
end of text ignored. After every step the blocks that the beams hold are counted twice: as they are (a shared block
once), and as they would be if each beam had its own copy of everything. Saved is 1 - (sum over steps of the first) /
(of the second), as in figure 15 of Kwon et al. 2023 (arXiv 2309.06180), for a request as a whole and for the blocks
behind its prompt alone. `n samples` is parallel sampling of the same prompts, which shares the prompt and nothing else.
Copies are of partly filled blocks, before a beam writes into one that others hold too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quire import LLM, SamplingParams
from quire.beams import Beams
from quire.request import Request
from quire.step import Step

SHORTEST, LONGEST = 128, 500


@dataclass
class Sums:
    """Over all steps of all requests."""

    shared: int = 0
    unshared: int = 0
    shared_behind: int = 0
    unshared_behind: int = 0
    num_steps: int = 0
    num_copies: int = 0
    seconds: float = 0.0

    def add(self, tables: list[list[int]], num_prompt_blocks: int) -> None:
        """The block tables of one request after one step."""
        behind = [table[num_prompt_blocks:] for table in tables]
        self.shared += len({block for table in tables for block in table})
        self.unshared += sum(map(len, tables))
        self.shared_behind += len({block for table in behind for block in table})
        self.unshared_behind += sum(map(len, behind))
        self.num_steps += 1


def measure(llm: LLM, prompts: list[tuple[int, ...]], width: int, max_tokens: int, beams: bool) -> Sums:
    """Serve each prompt alone, counting blocks after every step but those that read the prompt."""
    sums = Sums()
    scheduler, engine = llm.engine.scheduler, llm.engine
    for number, prompt in enumerate(prompts):
        params = SamplingParams(n=width, temperature=1.0, seed=number, max_tokens=max_tokens, ignore_eos=True)
        search = Beams(width, early_stopping="never") if beams else None
        engine.add(Request(f"{width}-{beams}-{number}", prompt, params, llm.spec.eos_ids, beams=search), 0.0)
        while scheduler.has_work:
            began = time.perf_counter()
            step: Step | None = scheduler.schedule(0.0)
            assert step is not None
            result = engine.runner.run(step)
            scheduler.settle(step, result, 0.0)
            seats = scheduler.running
            if len(step.works) > 1 and seats:
                sums.seconds += time.perf_counter() - began
                sums.num_copies += len(step.copies)
                sums.add([seat.blocks for seat in seats], len(prompt) // llm.plan.block_size)
    return sums


def read_prompts(llm: LLM, path: Path, count: int) -> list[tuple[int, ...]]:
    """The first `count` prompts of a fitting length."""
    found: list[tuple[int, ...]] = []
    for text in _texts(path):
        ids = llm.tokenizer.encode(text)
        if SHORTEST <= len(ids) <= LONGEST:
            found.append(tuple(ids))
        if len(found) == count:
            break
    return found


def _texts(path: Path) -> Iterator[str]:
    for entry in json.loads(path.read_text()):
        for turn in entry["conversations"][:1]:
            yield turn["value"]


def main() -> None:
    """Print one row a width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=None)
    parser.add_argument(
        "--prompts", type=Path, default=Path("../shared/data/prompts/sharegpt/ShareGPT_V3_filtered_500.json")
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    asked = parser.parse_args()
    llm = LLM(asked.model, max_num_seqs=max(asked.widths), max_model_len=LONGEST + asked.max_tokens)
    prompts = read_prompts(llm, asked.prompts, asked.requests)
    lengths = sorted(map(len, prompts))
    print(f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {asked.max_tokens} out")
    print(f"{'':>12} {'saved':>7} {'behind the prompt':>18} {'n samples':>10} {'copies a step':>14} {'ms a step':>10}")
    for width in asked.widths:
        found = measure(llm, prompts, width, asked.max_tokens, beams=True)
        other = measure(llm, prompts, width, asked.max_tokens, beams=False)
        behind = 1 - found.shared_behind / max(1, found.unshared_behind)
        print(
            f"{width:>6} beams {1 - found.shared / found.unshared:>7.1%} {behind:>18.1%}"
            f" {1 - other.shared / other.unshared:>10.1%}"
            f" {found.num_copies / found.num_steps:>14.2f} {1000 * found.seconds / found.num_steps:>10.2f}"
        )


if __name__ == "__main__":
    main()
