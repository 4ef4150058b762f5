"""One sample's text: any chunking gives the same text, the ending token is counted and not shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.text.sample_text import SampleText
from quire.text.tokenizer import Tokenizer

TEXT = "Once upon a time a small fox — called Ünä 🦊 — found a red ball. The ball was red."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(Path(__file__).parents[2] / "quire" / "bundled")


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=40), stop=st.sampled_from(["red", " ball", "🦊", "zzz"]))
@settings(max_examples=60, deadline=None)
def test_chunking_changes_nothing(tokenizer: Tokenizer, cuts: list[int], stop: str) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    sample, shown, at = SampleText(tokenizer, [], [stop]), "", 0
    for cut in (*cuts, len(ids)):
        shown += sample.push(ids[at : at + cut], ended=at + cut >= len(ids))
        at += cut
    assert shown == TEXT.partition(stop)[0]
    assert sample.stopped == (stop if stop in TEXT else None)
    whole = tokenizer.decode(ids[: sample.num_tokens])
    assert (stop in whole) == (sample.stopped is not None)
    assert stop not in tokenizer.decode(ids[: sample.num_tokens - 1])


def test_the_token_that_ended_it_is_counted_and_not_shown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("good night", add_special_tokens=False)
    sample = SampleText(tokenizer, [])
    assert sample.push(ids, ended=True, hidden=1) == tokenizer.decode(ids[:-1])
    assert sample.num_tokens == len(ids)


def test_an_included_stop_string_ends_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    sample = SampleText(tokenizer, [], ["ball"], include_stop=True)
    assert sample.push(ids, ended=True) == TEXT[: TEXT.index("ball") + 4]
