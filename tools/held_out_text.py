"""Writes text that the bundled model was not trained on, for `quire bench quality`.

`python -m tools.held_out_text > text`

Knows: the training mixture and a seed of its own. Does not know: models, tokens.
"""

from __future__ import annotations

import argparse
import sys
from random import Random

from training import mixture
from training.skills import stories

SEED = 990_001  # training counts up from small seeds


def main() -> None:
    """Conversations of every skill, or stories without a chat around them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=400_000)
    parser.add_argument("--stories", action="store_true", help="stories alone: no special tokens in the text")
    arguments = parser.parse_args()
    rng, texts, num_characters = Random(SEED), mixture.texts(SEED), 0
    while num_characters < arguments.characters:
        text = stories.raw(rng) + "\n" if arguments.stories else next(texts)
        num_characters += len(text)
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
