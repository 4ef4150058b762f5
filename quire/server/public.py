"""Beginnings of prompts that the operator declares public: what they compute is shared between keys.

Knows: ids. Does not know: who asks, texts (`public_files.py` reads them), blocks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublicPrefixes:
    """Public are the tokens that a prompt has in common with the beginning of one of `prefixes`, and no other."""

    prefixes: tuple[tuple[int, ...], ...] = ()

    def num_tokens(self, prompt: Sequence[int]) -> int:
        """How many tokens at the beginning of `prompt` are public."""
        return max([_num_common(prefix, prompt) for prefix in self.prefixes], default=0)


NOTHING_PUBLIC = PublicPrefixes()


def _num_common(prefix: Sequence[int], prompt: Sequence[int]) -> int:
    most = min(len(prefix), len(prompt))
    if prefix[:most] == prompt[:most]:
        return most
    return bisect_left(range(1, most + 1), True, key=lambda count: prefix[:count] != prompt[:count])
