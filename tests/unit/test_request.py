"""A request is valid or it does not exist: every field's range, and how ends are decided."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.errors import RequestError
from quire.request import Constraint, Finish, Request, SamplingParams, Sequence
from quire.sampling_params import RepetitionDetectionParams, truncated

OUT_OF_RANGE = {
    "n": [0, 129, True, 1.0, "1"],
    "temperature": [-0.1, 2.1, math.nan, math.inf, None, "1", True],
    "top_p": [0.0, 1.1, math.nan],
    "top_k": [-2, 1.5],
    "min_p": [-0.1, 1.1],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, math.inf],
    "repetition_penalty": [0.0, -1.0, 11.0],
    "seed": [2**63, -(2**63) - 1, 0.5],
    "max_tokens": [0, -1, 1.5],
    "min_tokens": [-1, 17],
    "logprobs": [-1, 21],
    "prompt_logprobs": [-1, 21],
    "stop": [[""], ["x"] * 17, ["x" * 1025], [3], 3, False, {"x": 1}, b"x"],
    "stop_token_ids": [[-1], ["a"], [2**31], [1] * 1025, 3, "1", {1: 2}],
    "ignore_eos": [1, "yes", None],
    "skip_special_tokens": [0],
    "repetition_detection": [True, {"max_pattern_size": 1}],
    "logit_bias": [[], 0, "", {1: 101.0}, {1: math.nan}, {-1: 1.0}, {"a": 1.0}, dict.fromkeys(range(1025), 1.0)],
    "bad_words": [[""], [3], 3, ["x"] * 1025, ["x" * 257]],
    "allowed_token_ids": [[], False, 3, "1", [-1], ["a"], [True], range(2**18 + 1)],
    "logits_processors": [[3], print, [print] * 17],
    "truncate_prompt_tokens": [0, -2, 1.5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name.split("_")[0] in caught.value.message


@pytest.mark.parametrize("values", [(-1, 0, 2), (2000, 0, 2), (3, 4, 2), (3, 0, 1), (3, 0, 2000), (3, 0, 2.0)])
def test_repetition_that_cannot_be_looked_for_is_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError, match="repetition_detection"):
        RepetitionDetectionParams(*values)


def asked(bad: tuple[tuple[int, ...], ...] = (), formed: bool = False, **params: object) -> Request:
    whole = SamplingParams(seed=1, **params)  # type: ignore[arg-type]
    return Request("r", (1,), whole, (0, 9), constraint=Constraint("g") if formed else None, bad_sequences=bad)


@pytest.mark.parametrize(
    ("what", "param", "words"),
    [
        ({"allowed_token_ids": [5], "bad": ((5,),)}, "allowed_token_ids", "bad_words"),
        ({"allowed_token_ids": [0, 9], "min_tokens": 2}, "allowed_token_ids", "min_tokens"),
        ({"allowed_token_ids": [7], "stop_token_ids": [7], "min_tokens": 2}, "allowed_token_ids", "leaves no token"),
        ({"allowed_token_ids": [5], "formed": True}, "allowed_token_ids", "structured outputs"),
        ({"bad": ((0,), (9,)), "formed": True}, "bad_words", "structured outputs"),
        ({"allowed_token_ids": [5, 9], "bad": ((9,),), "formed": True}, "allowed_token_ids", "structured outputs"),
    ],
)
def test_an_answer_that_could_not_begin_or_end_is_refused_by_both_names(what: Any, param: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        asked(**what)
    assert caught.value.param == param
    assert words in caught.value.message


def test_what_leaves_something_is_taken() -> None:
    asked(allowed_token_ids=[5, 6], bad=((5,), (6, 6)))
    asked(allowed_token_ids=[0, 5], min_tokens=2)
    asked(allowed_token_ids=[0], min_tokens=2, ignore_eos=True)
    asked(allowed_token_ids=[5, 9], bad=((0,),), formed=True)


@pytest.mark.parametrize(("kept", "room", "left"), [(None, 1, 9), (3, 1, 3), (20, 1, 9), (-1, 4, 6), (-1, 10, 1)])
def test_truncation_keeps_a_prompts_end(kept: int | None, room: int, left: int) -> None:
    prompt = tuple(range(9))
    assert truncated(prompt, SamplingParams(truncate_prompt_tokens=kept), 10, room) == prompt[9 - left :]


@given(st.one_of(st.none(), st.text(min_size=1, max_size=5), st.lists(st.text(min_size=1, max_size=5), max_size=4)))
def test_stop_strings_are_a_tuple_whatever_was_given(stop: object) -> None:
    stops = SamplingParams(stop=stop).stop_strings  # type: ignore[arg-type]
    assert isinstance(stops, tuple)
    assert list(stops) == ([] if stop is None else [stop] if isinstance(stop, str) else list(stop))  # type: ignore[call-overload]


def test_a_request_needs_tokens_a_seed_and_an_end() -> None:
    for prompt, params in [
        ((), SamplingParams(seed=1)),
        ((1,), SamplingParams()),
        ((1,), SamplingParams(seed=1, max_tokens=None)),
    ]:
        with pytest.raises(RequestError):
            Request("r", prompt, params)


@pytest.mark.parametrize(
    ("params", "drawn", "expected"),
    [
        (SamplingParams(seed=1, max_tokens=3), [9], Finish.STOP),
        (SamplingParams(seed=1, max_tokens=3, ignore_eos=True), [9], None),
        (SamplingParams(seed=1, max_tokens=3, ignore_eos=True), [9, 9, 9], Finish.LENGTH),
        (SamplingParams(seed=1, max_tokens=3, stop_token_ids=[4]), [5, 4], Finish.STOP),
        (SamplingParams(seed=1, max_tokens=3, min_tokens=2), [9], None),
        (SamplingParams(seed=1, max_tokens=3, min_tokens=2), [5, 9], Finish.STOP),
        (SamplingParams(seed=1, max_tokens=1), [9], Finish.STOP),
    ],
)
def test_the_first_reason_to_end_counts(params: SamplingParams, drawn: list[int], expected: Finish | None) -> None:
    request = Request("r", (1, 2), params, eos_ids=(9,))
    sequence = Sequence(1, request, tokens=[1, 2, *drawn], num_computed=2)
    assert sequence.finish_after(drawn[-1]) is expected
    assert sequence.num_owed == len(drawn)
