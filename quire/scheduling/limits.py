"""Knows: the numbers a scheduler keeps to. Does not know: where they come from."""

from __future__ import annotations

from dataclasses import dataclass, fields

from quire.errors import InvalidSetting

ANY_ID = 2**63


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of one step and of one sequence; a value below 1 raises `InvalidSetting`.

    `max_num_seqs` rows (samples) run at once, `max_num_batched_tokens` tokens are computed in one step, a sequence
    holds at most `max_model_len` tokens with its prompt, a KV block holds `block_size` tokens, and tokens are ids below
    `vocab_size`. With `early_blocks` a steady sequence takes its next block, if one is idle, a step before it writes
    there: a runner that works ahead finds it in the table.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int = 16
    vocab_size: int = ANY_ID
    early_blocks: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name != "early_blocks" and getattr(self, entry.name) < 1:
                raise InvalidSetting(f"{entry.name} is too small", got=getattr(self, entry.name), allowed="1 or more")

    def num_blocks(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens`."""
        return -(-num_tokens // self.block_size)
