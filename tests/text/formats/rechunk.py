"""The laws of the parser over many more ways to cut a text: `python -m tests.text.formats.rechunk [COUNT] [SEED]`.

COUNT cuts of every dialect: half of them of texts as written, in pieces of 1 to 64 bytes, half of spoilt ones.
"""

from __future__ import annotations

import random
import sys

from .answers import broken, check, cut, forms, no_marks, parsed, random_answer

CUTS_PER_TEXT = 10


def run(count: int, seed: int) -> int:
    """Number of cuts tried; the first that reads differently is an AssertionError."""
    tried = 0
    for name, form in forms().items():
        chance = random.Random(f"{name} {seed}")
        for number in range(-(-count // CUTS_PER_TEXT)):
            answer = random_answer(form, chance)
            answer = broken(answer, chance) if number % 2 else answer
            whole = parsed(answer, [answer.text])
            no_marks(form, whole)
            if number % 2 == 0:
                check(answer, whole)
            for _ in range(CUTS_PER_TEXT):
                assert parsed(answer, cut(answer.text, chance)) == whole, (name, answer.text)
                tried += 1
        print(f"{name:24} {tried:,} cuts", flush=True)
    return tried


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
