"""Writes what a model tells from nothing at temperature 1: `python tools/story_text.py FOLDER > text`.

For small models that know one kind of text alone, and of which no other sample is at hand. Drawn in float32, so that no
format that is measured on it had a hand in it.

Knows: `quire.LLM`. Does not know: what the text is for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quire import LLM, SamplingParams


def main() -> None:
    """One story for each of the seeds 0, 1, ..., each on lines of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stories", type=int, default=160)
    arguments = parser.parse_args()
    llm = LLM(arguments.folder, dtype="float32")
    first = llm.spec.bos_id or 0
    params = [
        SamplingParams(temperature=1.0, seed=seed, max_tokens=llm.plan.max_model_len - 1)
        for seed in range(arguments.stories)
    ]
    for answer in llm.generate([[first]] * arguments.stories, params):
        sys.stdout.write(answer.outputs[0].text.strip() + "\n")
    llm.close()


if __name__ == "__main__":
    main()
