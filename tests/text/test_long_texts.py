"""Long texts: encoded beside other threads, and told not to fit before they are encoded.

Knows: real tokenizers. Does not know: contexts.
"""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quire
from quire.text.tokenizer import LONG_CHARACTERS, Tokenizer

BUNDLED = Path(quire.__file__).parent / "bundled"
BOUNDED = ["tokenizers/gpt-2", "tokenizers/llama-bpe", "tokenizers/qwen2", "tokenizers/minimind"]
UNBOUNDED = ["tokenizers/llama-spm", "tokenizers/phi-3"]  # their normalizers change texts, unknown characters may merge
PIECES = st.sampled_from(
    [
        "a",
        " ",
        "the ",
        "\n\n",
        "é",
        "e\u0301",
        "\u1112\u1161\u11ab",
        "α\u0313\u0300\u0345",
        "日本",
        "💥",
        "<|im_end|>",
        "0",
    ]
)


@functools.cache
def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=40), times=st.integers(1, 40))
def test_no_text_has_fewer_ids_than_are_told(shared_data: Path, name: str, pieces: list[str], times: int) -> None:
    tokenizer, text = load(shared_data / name), "".join(pieces) * times
    assert len(tokenizer.encode(text, add_special_tokens=False)) >= tokenizer.least_ids(text)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_longest_token_is_worth_what_is_told(shared_data: Path, name: str) -> None:
    tokenizer = load(shared_data / name)
    longest = max((tokenizer.token_bytes(each) for each in range(tokenizer.vocab_size)), key=len).decode(
        "utf-8", "replace"
    )
    text = longest * 500
    assert tokenizer.least_ids(text) > 0
    assert len(tokenizer.encode(text, add_special_tokens=False)) >= tokenizer.least_ids(text)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_nothing_is_told_where_texts_are_changed_first(shared_data: Path, name: str) -> None:
    assert load(shared_data / name).least_ids("a" * 10**6) == 0


def test_half_a_surrogate_pair_is_no_reason_to_fail() -> None:
    assert load(BUNDLED).least_ids("\ud800" * 100_000) > 0


def test_long_and_short_texts_are_encoded_alike() -> None:
    tokenizer, text = load(BUNDLED), "Once upon a time, there were 12 <|im_start|>foxes. " * 200
    assert len(text) > LONG_CHARACTERS
    whole = tokenizer._backend.encode(text, add_special_tokens=True).ids
    assert tokenizer.encode(text) == whole


def test_other_threads_go_on_while_a_long_text_is_encoded() -> None:
    tokenizer = load(BUNDLED)
    thread = threading.Thread(target=tokenizer.encode, args=("ab " * 100_000,))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0)
    assert turns > 50  # one or two where the encoder holds the interpreter's lock
