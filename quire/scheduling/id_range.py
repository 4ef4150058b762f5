"""Tokens that are not in the vocabulary: in a prompt, and in what a step drew.

Knows: ids and how many there are. Does not know: who asked, or why a runner would draw such a thing.

A token that does not exist would be told to the one who asked, and then be looked up, in the next step, in a table that
does not hold it.
"""

from __future__ import annotations

from quire.step import ID_OUT_OF_RANGE, WorkResult

OUTSIDE = WorkResult(error=ID_OUT_OF_RANGE)


def is_within(outcome: WorkResult, vocab_size: int) -> bool:
    """Whether every token of `outcome`, drawn, forced or told of, is below `vocab_size`, and none below zero."""
    ids = [*outcome.tokens, *outcome.forced]
    for each in outcome.logprobs:
        ids += (each.token, *[token for token, _ in each.top])
    return not ids or (min(ids) >= 0 and max(ids) < vocab_size)
