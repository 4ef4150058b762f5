"""The detokenizer against the library's decoding of everything at once, for any ids in any chunking.

Knows: real tokenizers of every kind. Does not know: models.
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models

from quire.errors import UnsupportedModel
from quire.text.decoders import build_chain
from quire.text.detokenizer import Detokenizer
from quire.text.folder import SpecialTokens
from quire.text.tokenizer import Tokenizer

FOLDERS = ["tokenizers/gpt-2", "tokenizers/qwen2", "tokenizers/minimind", "tokenizers/llama-spm", "tokenizers/phi-3",
           "models/stories260K", "models/TinyStories-656K"]  # fmt: skip
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
SPM = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}  # fmt: skip
CHAINS: dict[str, tuple[dict | None, decoders.Decoder | None]] = {
    "sentencepiece": (SPM, decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])),
    "no strip": ({**SPM, "decoders": SPM["decoders"][:3]}, decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])),
    "piecewise strip": ({"type": "Sequence", "decoders": [SPM["decoders"][1], SPM["decoders"][3]]},
        decoders.Sequence([decoders.ByteFallback(), decoders.Strip(" ", 1, 0)])),
    "replace after fuse": ({"type": "Sequence", "decoders": [{"type": "Fuse"}, {
        "type": "Replace", "pattern": {"String": "aab"}, "content": "-"}]},
        decoders.Sequence([decoders.Fuse(), decoders.Replace("aab", "-")])),
    "byte level": ({"type": "ByteLevel"}, decoders.ByteLevel()),
    "metaspace": ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, decoders.Metaspace()),
    "metaspace never": ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"},
        decoders.Metaspace(prepend_scheme="never")),
}  # fmt: skip
pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [*BYTE_PIECES[0xC0:], *BYTE_PIECES[0x80:0x90], "<0x41>", "<0xE2>", "<0x82>", "<0xAC>", "<0xG1>"]
        ),
        st.text(alphabet="▁a b", max_size=4),
        st.sampled_from(["â", "Ĥ", "¬", "ð", "Ł", "ĠHi", "日本 x", "é", "▁▁", "", " "]),
    ),
    max_size=14,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.fixture(params=FOLDERS)
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> Tokenizer:
    return load(shared_data / request.param)


def streamed(
    tokenizer: Tokenizer, ids: list[int], chunk: int = 1, prompt: list[int] | None = None, skip: bool = True
) -> str:
    stream = Detokenizer(tokenizer, prompt or [], skip)
    pushed = [stream.push(ids[start : start + chunk]) for start in range(0, len(ids), chunk)]
    return "".join(pushed) + stream.flush()


def interesting_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that make trouble: bytes that begin or continue characters, special tokens, the edges of the vocabulary."""
    fallback = [tokenizer.id_of(piece) for piece in BYTE_PIECES]
    level = [tokenizer.id_of(character) for character in "âĤ¬ðŁ¦Ļï¸ıÃ©ãģ"]
    found = [token_id for token_id in [*fallback, *level] if token_id is not None]
    return [*found, *tokenizer.special_ids, 0, tokenizer.vocab_size - 1, tokenizer.vocab_size + 7]


@pytest.mark.parametrize("name", CHAINS)
@given(pieces=pieces)
@settings(deadline=None)
def test_every_decoder_equals_the_library_on_any_pieces(name: str, pieces: list[str]) -> None:
    spec, decoder = CHAINS[name]
    chain = build_chain(spec)
    text = "".join(chain.feed(piece) for piece in pieces) + chain.flush()
    assert text == decoder.decode(pieces)


@quick
@given(data=st.data())
def test_any_ids_in_any_chunking_read_as_decoded_at_once(tokenizer: Tokenizer, data: st.DataObject) -> None:
    any_id = st.integers(0, tokenizer.vocab_size - 1) | st.sampled_from(interesting_ids(tokenizer))
    ids = data.draw(st.lists(any_id, max_size=24))
    chunk, skip = data.draw(st.integers(1, 5)), data.draw(st.booleans())
    assert streamed(tokenizer, ids, chunk, skip=skip) == tokenizer.decode(ids, skip_special_tokens=skip)


@quick
@given(data=st.data())
def test_after_a_prompt_the_answer_reads_as_the_rest_of_the_whole(tokenizer: Tokenizer, data: st.DataObject) -> None:
    any_id = st.integers(0, tokenizer.vocab_size - 1) | st.sampled_from(interesting_ids(tokenizer))
    prompt = tokenizer.encode(data.draw(st.text(max_size=12)) + data.draw(st.sampled_from(["a", " the", "x."])))
    ids = data.draw(st.lists(any_id, max_size=16))
    whole = tokenizer.decode(prompt + ids)
    assert tokenizer.decode(prompt) + streamed(tokenizer, ids, prompt=prompt) == whole


def test_random_ids_at_length(tokenizer: Tokenizer) -> None:
    chance = random.Random(5)
    trouble = interesting_ids(tokenizer)
    ids = [
        chance.choice(trouble) if chance.random() < 0.6 else chance.randrange(tokenizer.vocab_size)
        for _ in range(20_000)
    ]
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_every_assigned_character_survives_the_way_there_and_back(tokenizer: Tokenizer, shared_data: Path) -> None:
    file = shared_data / "utf8" / "utf8_sequence_0-0xffff_assigned_printable_unseparated.txt"
    ids = tokenizer.encode(file.read_text(encoding="utf-8")[:30_000], add_special_tokens=False)
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_naughty_strings_stream_without_half_characters(tokenizer: Tokenizer, shared_data: Path) -> None:
    for text in json.loads((shared_data / "utf8" / "blns.json").read_text(encoding="utf-8")):
        ids = tokenizer.encode(text, add_special_tokens=False)
        whole = tokenizer.decode(ids)
        stream = Detokenizer(tokenizer)
        sent = ""
        for token_id in ids:
            sent += stream.push([token_id])
            assert whole.startswith(sent)
        assert sent + stream.flush() == whole


def test_a_character_split_over_tokens_is_kept_back(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/gpt-2")
    ids = tokenizer.encode("🦙!")
    stream = Detokenizer(tokenizer)
    texts = [stream.push([token_id]) for token_id in ids]
    assert len(ids) > 2
    assert texts == [""] * (len(ids) - 2) + ["🦙", "!"]
    assert stream.flush() == ""


def test_half_a_character_at_the_end_is_flushed_as_the_library_reads_it(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/gpt-2")
    stream = Detokenizer(tokenizer)
    assert stream.push(tokenizer.encode("a🦙")[:-1]) == "a"
    assert stream.flush() == "\ufffd"


def test_a_character_begun_by_the_prompt_is_the_answers(shared_data: Path) -> None:
    for folder in ("tokenizers/gpt-2", "models/stories260K", "tokenizers/llama-spm"):
        tokenizer = load(shared_data / folder)
        # a llama too rare for any vocabulary, after another one: the prompt's run of bytes must not be said again
        ids = tokenizer.encode("x🦙🦙")
        for num_prompt in range(len(ids) - 3, len(ids)):
            assert streamed(tokenizer, ids[num_prompt:], prompt=ids[:num_prompt]) == "🦙"


def test_nothing_is_said_for_a_prompts_half_character_alone(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/gpt-2")
    assert Detokenizer(tokenizer, tokenizer.encode("a🦙")[:-1]).flush() == ""


def test_leading_space_depends_on_the_prompt(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/llama-spm")
    hello = [tokenizer.id_of("▁Hello")]
    assert tokenizer.bos_id is not None
    assert streamed(tokenizer, hello, prompt=[]) == "Hello"
    assert streamed(tokenizer, hello, prompt=[tokenizer.bos_id]) == "Hello"
    assert streamed(tokenizer, hello, prompt=tokenizer.encode("Say")) == " Hello"


def test_offsets_count_characters_before_each_token(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/gpt-2")
    stream = Detokenizer(tokenizer)
    tokens = stream.push_each(tokenizer.encode("Hi 🦙 you"))
    text = "".join(token.text for token in tokens)
    assert text == "Hi 🦙 you"
    for token in tokens:
        assert text[token.offset :].startswith(token.text)
    assert [token.offset for token in tokens][-1] == text.index(" you")
    assert [token.offset for token in tokens] == sorted(token.offset for token in tokens)


def test_a_long_run_of_bad_bytes_is_kept_back_by_no_more_than_a_character(shared_data: Path) -> None:
    """What is held decides memory and work per token; it must not grow with the run."""
    for folder, bad in (("tokenizers/llama-spm", "<0xFF>"), ("tokenizers/gpt-2", "ÿ"), ("tokenizers/gpt-2", "â")):
        tokenizer = load(shared_data / folder)
        bad_id = tokenizer.id_of(bad)
        assert bad_id is not None
        stream = Detokenizer(tokenizer)
        sent = "".join(stream.push([bad_id]) for _ in range(5000))
        assert len(sent) >= 4999
        assert sent + stream.flush() == "\ufffd" * 5000


def test_reading_a_prompt_looks_only_at_its_ends(shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers/qwen2")
    prompt = tokenizer.encode("word " * 5000)
    seen = 0

    class Counting(Tokenizer):
        def __init__(self) -> None:
            self.__dict__.update(tokenizer.__dict__)

        def piece(self, token_id: int) -> str | None:
            nonlocal seen
            seen += 1
            return super().piece(token_id)

    Detokenizer(Counting(), prompt)
    assert seen < 10


def test_spaces_are_cleaned_up_where_the_folder_asks_and_the_model_is_not_bpe() -> None:
    vocabulary = {word: index for index, word in enumerate(["it", "'", "s", ".", "n't", "do", "?", " ", " '", "[UNK]"])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer = Tokenizer(backend, SpecialTokens(clean_up_spaces=True), {})
    chance = random.Random(3)
    assert tokenizer.decode([0, 3]) == "it."
    for _ in range(300):
        ids = [chance.randrange(9) for _ in range(12)]
        assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_added_tokens_decode_as_the_library_decodes_them(shared_data: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(shared_data / "tokenizers/gpt-2/tokenizer.json"))
    backend.add_tokens([AddedToken("é"), AddedToken("日本 x")])
    tokenizer = Tokenizer(backend, SpecialTokens(), {})
    last = tokenizer.vocab_size - 1
    for ids in ([last], [last - 1], [last - 1, last, 220, last - 1]):
        assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_a_decoder_that_cannot_be_streamed_is_refused_by_name() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.decoder = decoders.CTC()
    with pytest.raises(UnsupportedModel, match="CTC"):
        Tokenizer(backend, SpecialTokens(), {})
