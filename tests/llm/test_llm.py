"""`LLM` as a script uses it: vLLM's names and shapes, on the bundled model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from quire import LLM, RepetitionDetectionParams, SamplingParams, StructuredOutputsParams
from quire.errors import ContextLengthExceeded, GenerationFailed, InvalidSetting, NothingAllowed, RequestError
from quire.text.bad_words import bad_sequences

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


STORY = "Once upon a time there was"
COLOURS = StructuredOutputsParams(choice=["red", "green", "blue"])


def halves(output_ids: Any, logits: Any) -> None:
    logits[::2] = -math.inf


def fails(output_ids: Any, logits: Any) -> None:
    if len(output_ids) == 3:
        raise ValueError("enough")


BESIDE: dict[str, Any] = {
    "n": {"n": 2},
    "greedy": {"temperature": 0.0},
    "cuts": {"top_k": 50, "top_p": 0.9, "min_p": 0.01},
    "penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "bias": {"logit_bias": {5: 3.0}},
    "stops": {"stop": ["e"], "stop_token_ids": [17], "include_stop_str_in_output": True},
    "min_tokens": {"min_tokens": 4},
    "ignore_eos": {"ignore_eos": True},
    "logprobs": {"logprobs": 3, "prompt_logprobs": 2},
    "bad_words": {"bad_words": ["the", "a"]},
    "allowed": {"allowed_token_ids": [*range(0, 4000, 3), 1]},
    "repetition": {"repetition_detection": RepetitionDetectionParams(4, 1, 2)},
    "special": {"skip_special_tokens": False, "spaces_between_special_tokens": False},
    "truncated": {"truncate_prompt_tokens": 2},
}


def test_a_logits_processor_beside_every_other_feature(llm: LLM) -> None:
    """Its own law, that only odd ids are drawn, holds whatever else is asked for; and nobody else is touched by it."""
    asked = [SamplingParams(seed=3, max_tokens=12, logits_processors=[halves], **each) for each in BESIDE.values()]
    plain = SamplingParams(seed=3, max_tokens=12)
    *outputs, beside = llm.generate([STORY] * (len(asked) + 1), [*asked, plain])
    for name, output in zip(BESIDE, outputs, strict=True):
        for sample in output.outputs:
            assert sample.finish_reason in ("length", "stop", "repetition"), name
            assert all(token % 2 for token in sample.token_ids), name
            assert sample.token_ids
    assert beside.outputs[0].token_ids == llm.generate(STORY, plain)[0].outputs[0].token_ids


def test_a_logits_processor_and_a_form_meet(llm: LLM) -> None:
    def only_green(output_ids: Any, logits: Any) -> Any:
        made = logits.copy()
        made[llm.tokenizer.encode("red", add_special_tokens=False)[0]] = -math.inf
        made[llm.tokenizer.encode("blue", add_special_tokens=False)[0]] = -math.inf
        return made

    params = SamplingParams(max_tokens=9, seed=1, structured_outputs=COLOURS, logits_processors=[only_green])
    assert not llm.generate(STORY, params)[0].outputs[0].text.startswith(("red", "blue"))


def test_a_logits_processor_that_fails_ends_its_own_request(llm: LLM) -> None:
    plain = SamplingParams(seed=3, max_tokens=8)
    bad, good = llm.generate([STORY] * 2, [SamplingParams(seed=3, max_tokens=8, logits_processors=[fails]), plain])
    assert bad.outputs[0].finish_reason == "error"
    assert isinstance(bad.outputs[0].error, GenerationFailed)
    assert "fails raised ValueError: enough" in bad.outputs[0].error.message
    assert bad.outputs[0].token_ids == good.outputs[0].token_ids[:3]
    assert (good.outputs[0].finish_reason, good.outputs[0].error) == ("length", None)


def test_what_leaves_nothing_has_a_type(llm: LLM) -> None:
    only = [*llm.tokenizer.encode("x", add_special_tokens=False), *llm.spec.eos_ids]
    params = SamplingParams(max_tokens=8, structured_outputs=COLOURS, allowed_token_ids=only)
    (output,) = llm.generate(STORY, params)
    assert isinstance(output.outputs[0].error, NothingAllowed)


def test_bad_words_are_not_written(llm: LLM) -> None:
    plain = llm.generate(STORY, GREEDY)[0].outputs[0]
    words = sorted({word for word in plain.text.split() if word.isalpha()})
    again = llm.generate(STORY, replace(GREEDY, bad_words=words))[0].outputs[0]
    written = tuple(again.token_ids)
    for bad in bad_sequences(llm.tokenizer, words):
        assert bad not in {written[at : at + len(bad)] for at in range(len(written))}
    assert plain.text != again.text


def test_a_stop_id_is_shown_where_stops_are_asked_for(llm: LLM) -> None:
    plain = llm.generate(STORY, GREEDY)[0].outputs[0]
    last = plain.token_ids[5]
    kept = plain.token_ids[: plain.token_ids.index(last) + 1]
    for shown in (False, True):
        params = replace(GREEDY, stop_token_ids=[last], include_stop_str_in_output=shown)
        ended = llm.generate(STORY, params)[0].outputs[0]
        assert (ended.token_ids, ended.stop_reason) == (kept, last)
        assert ended.text == llm.tokenizer.decode(kept if shown else kept[:-1])
