"""One answer in its grammar: masks, the end, steps back; vocabularies of every kind; the cache's budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.errors import RequestError
from quire.form import StructuredOutputsParams
from quire.structured.grammar import BYTES_PER_GRAMMAR, Grammar, GrammarCache, compile_grammar
from quire.structured.matcher import Matcher
from quire.structured.matchers import Matchers
from quire.structured.order import MaskOrder
from quire.structured.source import grammar_of
from quire.structured.vocabulary import Vocabulary
from quire.text.tokenizer import Tokenizer


def compiled(words: Vocabulary, **form: Any) -> Grammar:
    return compile_grammar(grammar_of(StructuredOutputsParams(**form)), words)


def allowed(matcher: Matcher, words: Vocabulary) -> set[int]:
    row = memoryview(bytearray(words.row_bytes))
    matcher.fill(row)
    return {token for token in range(words.row_bytes * 8) if row[token // 8] >> token % 8 & 1}


def test_the_end_is_allowed_where_the_grammar_is_complete_and_nowhere_else(words: Vocabulary) -> None:
    matcher = Matcher(compiled(words, regex="a{2,3}"))
    ends = set(words.ends)
    (a,) = words.encode("a")
    for count in range(3):
        tokens = allowed(matcher, words)
        assert bool(tokens & ends) == (count == 2) == matcher.accepts
        assert {words.bytes_of[token] for token in tokens - ends} <= {b"a", b"aa", b"aaa"}
        matcher.accept([a])
    assert allowed(matcher, words) == ends
    assert matcher.done
    assert matcher.num_tokens == 3


def test_a_token_that_is_not_allowed_is_refused(words: Vocabulary) -> None:
    matcher = Matcher(compiled(words, choice=["yes"]))
    with pytest.raises(RequestError):
        matcher.accept(words.encode("no"))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_steps_back_lead_to_where_it_was(words: Vocabulary, data: st.DataObject) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}, "required": ["a"]}
    matcher = Matcher(compiled(words, json=schema))
    seen = [allowed(matcher, words)]
    for _ in range(data.draw(st.integers(1, 12))):
        back = data.draw(st.integers(0, len(seen) - 1))
        matcher.rollback(back)
        del seen[len(seen) - back :]
        assert allowed(matcher, words) == seen[-1]
        choices = sorted(seen[-1] - set(words.ends))
        if not choices:
            break
        matcher.accept([data.draw(st.sampled_from(choices))])
        seen.append(allowed(matcher, words))


def test_forced_tokens_are_the_tokenizers_own(words: Vocabulary) -> None:
    text = "the quick brown fox jumps"
    matcher = Matcher(compiled(words, regex=text + "( high| low)"))
    forced = matcher.forced()
    assert forced
    assert forced == words.encode(text + " high")[: len(forced)] == words.encode(text + " low")[: len(forced)]


@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gpt-2", "qwen2"])
def test_every_kind_of_vocabulary_writes_json(shared_data: Path, name: str) -> None:
    """Also one that writes a space before each text, and a model with more ids than its tokenizer."""
    folder = shared_data / "tokenizers" / name
    tokenizer = Tokenizer.from_folder(folder)
    end = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.vocab_size - 1
    words = Vocabulary(tokenizer, tokenizer.vocab_size + 77, [end])
    schema = {
        "type": "object",
        "properties": {"né": {"type": "string"}},
        "required": ["né"],
        "additionalProperties": False,
    }
    matcher = Matcher(compiled(words, json=schema))
    text = '{"né": "Ünïcode 漢字 \\n 🙂"}'
    tokens = words.encode(text)
    assert b"".join([words.bytes_of[token] for token in tokens]) == text.encode()
    for token in tokens:
        assert token in allowed(matcher, words)
        matcher.accept([token])
    assert allowed(matcher, words) == {end}
    assert all(words.bytes_of[token] for token in allowed(Matcher(compiled(words, json=True)), words))


def test_special_tokens_are_not_text(words: Vocabulary) -> None:
    matcher = Matcher(compiled(words, regex=r"(.|\n)*"))
    assert allowed(matcher, words) & set(words.special_ids) == set(words.ends)


def test_matchers_fill_their_rows_and_fail_alone(words: Vocabulary) -> None:
    matchers = Matchers(GrammarCache(words))
    good, bad = grammar_of(StructuredOutputsParams(regex="x+")), "start: nobody"
    rows = memoryview(bytearray(b"\xff" * words.row_bytes * 3))
    failures = matchers.obey(
        MaskOrder(((1, "", good), (2, "", bad)), ((1, 2, (), False), (2, 0, (), False))), rows
    ).failures
    assert [row for row, _ in failures] == [0]
    assert not any(rows[: words.row_bytes])
    assert set(rows[words.row_bytes : 2 * words.row_bytes]) == {255}  # nobody's row
    assert any(rows[2 * words.row_bytes :])
    matchers.obey(MaskOrder((), (), (1, 2)), rows)
    assert len(matchers) == 0


def test_the_cache_forgets_what_its_owner_has_not_used(words: Vocabulary) -> None:
    cache = GrammarCache(words, budget_bytes=5 * BYTES_PER_GRAMMAR, owner_bytes=int(2.5 * BYTES_PER_GRAMMAR))
    texts = [grammar_of(StructuredOutputsParams(regex=letter)) for letter in "abcdef"]
    cache.get("guest", texts[0])
    for text in texts[:2] * 2 + texts[2:4]:
        cache.get("host", text)
    assert [(owner, text) for owner in ("host",) for text in texts if (owner, text) in cache] == [
        ("host", texts[2]), ("host", texts[3])
    ]  # fmt: skip
    assert ("guest", texts[0]) in cache
    for letter in "uvwxyz":
        cache.get(letter, texts[5])
    assert ("guest", texts[0]) not in cache
    assert cache.num_bytes <= 5 * BYTES_PER_GRAMMAR


@pytest.mark.parametrize("name", ["arithmetic", "c", "chess", "english", "japanese", "json", "json_arr", "list"])
def test_ebnf_grammars_compile(words: Vocabulary, shared_data: Path, name: str) -> None:
    text = (shared_data / "json_schema" / f"{name}.gbnf").read_text(encoding="utf-8")
    matcher = Matcher(compiled(words, grammar=text))
    assert allowed(matcher, words)
    if name == "json":
        matcher.accept(words.encode(json.dumps({"a": [1, "b", None]})))
        assert matcher.accepts
