"""Knows: who goes first, who is put back first, and how a step's tokens are shared out: pure functions of numbers.

Does not know: queues, blocks, or what the tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

PROMPT_SHARE = 4
WATERMARK_SHARE = 100


def place(arrival: int, index: int) -> tuple[int, int]:
    """First come, first served: the key of one sample in the line. The largest running key is put back first."""
    return (arrival, index)


def share_out(owed: SequenceOf[int], budget: int) -> list[int]:
    """Tokens granted to each running sequence, oldest first, at most `budget` in all.

    Whoever owes one token (its newest) goes before those who owe many (a prompt, or what a preemption threw away), so
    that a long prompt stalls nobody; but a quarter of the budget is kept for prompts, so that a full house of short
    steps does not stall a prompt either. The oldest sequence always gets a token.

        budget  |-- one each, oldest first --|-- prompts, oldest first: at least a quarter if they owe it --|
    """
    total = sum(owed)
    if total <= budget:
        return list(owed)
    num_single = sum(1 for count in owed if count == 1)
    spare = budget - 1 if owed[0] == 1 else budget
    kept = min(total - num_single, -(-spare // PROMPT_SHARE))
    singles = min(num_single, budget - kept)
    rest = budget - singles
    grants = []
    for count in owed:
        if count == 1:
            grant = 1 if singles else 0
            singles -= grant
        else:
            grant = min(count, rest)
            rest -= grant
        grants.append(grant)
    return grants


def watermark(num_blocks: int) -> int:
    """Idle blocks that admission leaves to those already running: one in a hundred, at least one."""
    return max(1, num_blocks // WATERMARK_SHARE)
