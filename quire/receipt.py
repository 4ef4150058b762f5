"""What an answer's bits depend on, part by part, and one digest of all parts.

    equal digests + equal requests (with a seed) = equal bits

Different digests promise nothing: another release may compute the same. Which part differs says where to look.

Knows: named parts as text. Does not know: how any part is found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

DIGEST_DIGITS = 16  # hex digits of a digest as people see it: 64 bits

MEANINGS: Mapping[str, str] = {
    "weights": "names, shapes, number formats and SHA-256 of the checkpoint's tensors",
    "config": "what config.json says of the model",
    "formats": "number formats of layers, embedding and head, and KV cache",
    "context": "longest sequence in tokens",
    "isa": "instruction set of the kernels",
    "code": "the kernel library and the Python files that compute",
    "rope": "position tables, which NumPy computes",
    "engine": "release of quire",
    "numpy": "release of NumPy",
    "tokenizer": "tokenizer.json and the special tokens beside it",
    "template": "chat template",
    "defaults": "sampling parameters of requests that name none",
    "dialect": "how tool calls and reasoning are told from text",
    "grammars": "release of llguidance, which constrains answers",
}
"""What each part stands for."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Named parts; a name stands once. Sorted by name."""

    parts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, str]) -> Receipt:
        """The receipt of these parts."""
        return cls(tuple(sorted(parts.items())))

    def __or__(self, other: Receipt) -> Receipt:
        """Both; where both have a part, the other's counts."""
        return Receipt.of({**dict(self.parts), **dict(other.parts)})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all names and values."""
        return digest_of([f"{name}={value}" for name, value in self.parts])

    def differences(self, other: Receipt) -> list[tuple[str, str, str]]:
        """(name, value here, value there) of every part that differs; "" where one has no such part."""
        here, there = dict(self.parts), dict(other.parts)
        return [
            (name, here.get(name, ""), there.get(name, ""))
            for name in sorted(here | there)
            if here.get(name) != there.get(name)
        ]


NO_RECEIPT = Receipt()


def digest_of(lines: list[str]) -> str:
    """SHA-256 (hex) of lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def short(digest: str) -> str:
    """A digest for people."""
    return digest[:DIGEST_DIGITS]
