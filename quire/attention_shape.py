"""What may be known of a model's attention before its first step.

Knows: numbers. Does not know: kernels, arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("tokens", "prompts", "mixed")
TYPICAL_KEYS = 1024
TYPE_BYTES = 2


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Heads, pages, and the most that one step may hold: sequences, tokens, keys of a sequence."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    block_size: int
    kv_dtype: str
    most_seqs: int
    most_tokens: int
    most_keys: int

    @property
    def group(self) -> int:
        """Query heads that share a kv head."""
        return self.num_heads // self.num_kv_heads


def kind_of(query_counts_S: Sequence[int]) -> str:
    """Of a step whose sequences have so many queries: single tokens alone, prompts alone, or both."""
    if max(query_counts_S) == 1:
        return "tokens"
    return "prompts" if min(query_counts_S) > 1 else "mixed"


def typical(shape: AttentionShape, kind: str, most_bytes: int = 2**28) -> list[tuple[int, int]]:
    """A step of that kind as (queries, keys) of its sequences: as many tokens as fit, half of them beside a prompt, or
    prompts alone. Keys are 1024 a token, fewer where one layer's keys and values would take more than `most_bytes`."""
    rows = {"tokens": shape.most_seqs, "prompts": 0, "mixed": shape.most_seqs // 2}[kind]
    rows = min(rows, shape.most_tokens)
    fits = most_bytes // (max(rows, 1) * 2 * shape.num_kv_heads * shape.head_dim * TYPE_BYTES)
    keys = max(min(shape.most_keys, TYPICAL_KEYS, fits), 1)
    sizes, left = [(1, keys)] * rows, shape.most_tokens - rows if kind != "tokens" else 0
    while left > 1 and len(sizes) < max(shape.most_seqs, 1):
        sizes.append((min(left, shape.most_keys), min(left, shape.most_keys)))
        left -= sizes[-1][0]
    return sizes
