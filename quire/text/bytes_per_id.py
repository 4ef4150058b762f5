"""How many bytes of a text one id can stand for at most, so that a text that cannot fit is refused unread.

Encoding a megabyte takes a second or more of a processor; that it will have too many ids can be told from its length,
where a tokenizer neither drops nor merges anything but by its vocabulary.

Knows: a tokenizer's steps. Does not know: texts, contexts.
"""

from __future__ import annotations

import json
from typing import Any

import tokenizers

COMPOSED = 4  # NFC makes three bytes of up to nine (Hangul from its letters), never a quarter


def most_bytes_per_id(backend: tokenizers.Tokenizer) -> int | None:
    """The bound, in bytes of UTF-8; None for a tokenizer of which none is known."""
    normalizer, splitter = _state(backend.normalizer), _state(backend.pre_tokenizer)
    added = backend.get_added_tokens_decoder().values()
    if type(backend.model).__name__ != "BPE" or backend.model.unk_token is not None or not _keeps_bytes(splitter):
        return None
    if normalizer.get("type", "NFC") != "NFC" or any(token.lstrip or token.rstrip for token in added):
        return None
    longest = max(
        max(map(len, backend.get_vocab(with_added_tokens=False)), default=1),  # a character is a byte there
        max([len(token.content.encode("utf-8")) for token in added], default=1),
    )
    return longest * (COMPOSED if normalizer else 1)


def _keeps_bytes(splitter: dict[str, Any]) -> bool:
    """Whether all that goes in comes out, as bytes."""
    steps = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
    if not steps or steps[-1].get("type") != "ByteLevel":
        return False
    return all(
        step.get("type") in ("ByteLevel", "Digits") or (step.get("type") == "Split" and step["behavior"] != "Removed")
        for step in steps
    )


def _state(step: Any) -> dict[str, Any]:
    found: dict[str, Any] = {} if step is None else json.loads(step.__getstate__())
    return found
