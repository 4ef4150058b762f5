"""Bad words as ids: for a byte-level vocabulary and for one that writes spaces as a mark."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers

import quire
from quire.errors import RequestError
from quire.text.bad_words import bad_sequences
from quire.text.folder import SpecialTokens
from quire.text.tokenizer import Tokenizer

BUNDLED = Tokenizer.from_folder(Path(quire.__file__).parent / "bundled")


def marked() -> Tokenizer:
    """Like Llama 2: every text begins with a mark, which is a space."""
    pieces = ["▁", "▁no", "no", "n", "o", "w", "▁w", "<0x0A>", "<unk>"]
    merges = [("n", "o"), ("▁", "no"), ("▁", "w")]
    backend = tokenizers.Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>"
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend, SpecialTokens(), {})


def test_with_and_without_a_space_before() -> None:
    sequences = bad_sequences(BUNDLED, ["fox"])
    texts = {BUNDLED.decode(sequence) for sequence in sequences}
    assert texts <= {"fox", " fox"}
    assert "fox" in texts
    assert bad_sequences(BUNDLED, [" fox"]) == bad_sequences(BUNDLED, ["fox"])


def test_none_is_the_end_of_another() -> None:
    sequences = bad_sequences(BUNDLED, ["fox", "a fox", "x", "was happy", "fox"])
    assert len(set(sequences)) == len(sequences)
    for each in sequences:
        assert not any(other != each and each[-len(other) :] == other for other in sequences)


def test_every_word_of_a_text_is_found_in_it() -> None:
    text = "Once there was a small fox, and it lived near the river; it was very happy."
    ids = BUNDLED.encode(text, add_special_tokens=False)
    for word in random.Random(1).sample(text.replace(",", "").replace(";", "").replace(".", "").split(), 8):
        spans = bad_sequences(BUNDLED, [word])
        assert any(tuple(ids[at : at + len(span)]) == span for span in spans for at in range(len(ids))), word


def test_a_word_without_tokens_is_refused() -> None:
    with pytest.raises(RequestError, match="lone surrogate"):
        bad_sequences(BUNDLED, ["\ud800"])


def test_a_mark_before_every_text_does_not_hide_the_word_inside_one() -> None:
    tokenizer = marked()
    sequences = bad_sequences(tokenizer, ["no"])
    assert (tokenizer.id_of("▁no"),) in sequences
    assert (tokenizer.id_of("no"),) in sequences
