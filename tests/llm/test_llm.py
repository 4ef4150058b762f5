"""`LLM` as a script uses it: vLLM's names and shapes, on the bundled model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from quire import LLM, SamplingParams
from quire.errors import ContextLengthExceeded, InvalidSetting, RequestError

GREEDY = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    made = LLM(max_num_seqs=8, dtype="float32")
    yield made
    made.close()


def test_strings_and_ids_give_the_same_answer(llm: LLM) -> None:
    text = "Once upon a time"
    ids = llm.tokenizer.encode(text)
    by_text, by_ids, by_dict = llm.generate([text, ids, {"prompt_token_ids": ids}], GREEDY)
    assert by_text.prompt == text
    assert by_text.prompt_token_ids == ids
    assert by_text.outputs[0].token_ids == by_ids.outputs[0].token_ids == by_dict.outputs[0].token_ids
    assert by_text.outputs[0].text == llm.tokenizer.decode([*ids, *by_text.outputs[0].token_ids])[len(text) :]
    assert by_text.finished


def test_one_prompt_may_stand_alone(llm: LLM) -> None:
    assert len(llm.generate("Once", GREEDY)) == 1
    assert len(llm.generate(llm.tokenizer.encode("Once"), GREEDY)) == 1


def test_chat_answers_and_stops_by_itself(llm: LLM) -> None:
    (output,) = llm.chat([{"role": "user", "content": "Hello!"}], SamplingParams(temperature=0, max_tokens=200))
    answer = output.outputs[0]
    assert answer.finish_reason == "stop"
    assert answer.stop_reason is None
    assert answer.token_ids[-1] in llm.spec.eos_ids
    assert "<|" not in answer.text
    assert answer.text.strip()


def test_a_stop_string_ends_the_text_and_the_work(llm: LLM) -> None:
    whole = llm.generate("Once upon a time", GREEDY)[0].outputs[0]
    stop = whole.text.split()[3]
    params = SamplingParams(temperature=0, max_tokens=24, stop=[stop])
    cut = llm.generate("Once upon a time", params)[0].outputs[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert len(cut.token_ids) < len(whole.token_ids)
    assert not llm.engine.has_work


def test_logprobs_are_finite_and_hold_the_chosen_token(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=5, logprobs=3, prompt_logprobs=2)
    output = llm.generate("The little fox", params)[0]
    answer = output.outputs[0]
    assert answer.logprobs is not None
    for token, entry in zip(answer.token_ids, answer.logprobs, strict=True):
        assert entry[token].rank == 1
        assert len(entry) == 3
        assert all(math.isfinite(each.logprob) and each.logprob <= 0 for each in entry.values())
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    for token, told in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True):
        assert told is not None
        assert token in told


def test_prompt_logprobs_agree_with_drawn_ones(llm: LLM) -> None:
    """What a continuation was worth when drawn is what it is worth when read back as a prompt: the same bits."""
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=0, ignore_eos=True)
    prompt = llm.tokenizer.encode("One day, a dog")
    drawn = llm.generate(prompt, params)[0].outputs[0]
    read = llm.generate([*prompt, *drawn.token_ids], SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0))[
        0
    ].prompt_logprobs
    assert drawn.logprobs is not None
    assert read is not None
    tail = read[len(prompt) :]
    for token, told, again in zip(drawn.token_ids, drawn.logprobs, tail, strict=True):
        assert again is not None
        assert told[token].logprob == again[token].logprob


def test_samples_differ_and_a_seed_repeats_them(llm: LLM) -> None:
    params = SamplingParams(n=4, temperature=1.5, seed=3, max_tokens=12)
    first, second = (llm.generate("Once", params)[0] for _ in range(2))
    texts = [output.text for output in first.outputs]
    assert texts == [output.text for output in second.outputs]
    assert len(set(texts)) > 1


def test_params_may_be_given_for_each_prompt(llm: LLM) -> None:
    outputs = llm.generate(["a", "b"], [SamplingParams(max_tokens=2), SamplingParams(max_tokens=5, ignore_eos=True)])
    assert len(outputs[1].outputs[0].token_ids) == 5
    with pytest.raises(RequestError, match="one SamplingParams for each prompt"):
        llm.generate(["a", "b"], [GREEDY])


def test_streaming_gives_the_same_text(llm: LLM) -> None:
    whole = llm.generate("Once upon a time", GREEDY)[0].outputs[0].text
    assert "".join(llm.stream("Once upon a time", GREEDY)) == whole


def test_leaving_a_stream_frees_its_blocks(llm: LLM) -> None:
    for _ in llm.stream("Once", SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True)):
        break
    assert not llm.engine.has_work
    assert llm.engine.scheduler.cache_use().num_used == 0


def test_a_shared_prefix_is_read_once(llm: LLM) -> None:
    prompt = llm.tokenizer.encode("word " * 100)
    llm.reset_prefix_cache()
    first, second = (llm.generate(prompt, GREEDY)[0] for _ in range(2))
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, (len(prompt) - 1) // 16 * 16)
    assert first.outputs[0].token_ids == second.outputs[0].token_ids
    llm.reset_prefix_cache()
    assert llm.generate(prompt, GREEDY)[0].num_cached_tokens == 0


def test_what_cannot_be_is_refused(llm: LLM) -> None:
    with pytest.raises(ContextLengthExceeded):
        llm.generate([5] * 5000, GREEDY)
    with pytest.raises(RequestError, match="out of range"):
        llm.generate([10**6], GREEDY)
    with pytest.raises(RequestError):
        llm.generate([[]], GREEDY)
    with pytest.raises(InvalidSetting):
        LLM(dtype="int3")
    assert not llm.engine.has_work


def test_one_bad_prompt_leaves_nothing_of_the_others(llm: LLM) -> None:
    with pytest.raises(RequestError, match="out of range"):
        llm.generate(["fine", [10**6]], GREEDY)
    assert not llm.engine.has_work
