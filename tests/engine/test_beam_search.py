"""Beam search against transformers, on tiny random checkpoints: the same sequences, the same scores.

Knows: transformers' `generate`, which is right by definition here. Does not know: how beams share blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, BeamSearchParams, SamplingParams
from quire.errors import RequestError, UnsupportedField

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.models.tiny import make_tiny  # noqa: E402

FAMILIES = ("llama", "qwen2", "qwen3")
EOS = 258
PROMPTS = ([5, 17, 100, 41], list(range(30, 63)), [7])


@functools.cache
def _theirs(folder: Path) -> Any:
    torch.set_num_threads(1)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / request.param, request.param)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    made = LLM(folder, dtype="float32", max_num_seqs=24, kv_cache_memory_bytes=2**24)
    yield made
    made.close()


def _expected(folder: Path, prompt: list[int], params: BeamSearchParams) -> tuple[list[list[int]], list[float]]:
    """Sequences behind the prompt, best first, and their scores."""
    ids = torch.tensor([prompt])
    out = _theirs(folder).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=params.beam_width,
        num_return_sequences=params.beam_width,
        max_new_tokens=params.max_tokens,
        min_new_tokens=params.min_tokens or None,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
        eos_token_id=None if params.ignore_eos else [EOS, *(params.stop_token_ids or ())],
        pad_token_id=0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ends = {EOS, *(params.stop_token_ids or ())} if not params.ignore_eos else set()
    found = [_until(sequence[len(prompt) :], ends) for sequence in out.sequences.tolist()]
    return found, out.sequences_scores.tolist()


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    place = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: place + 1]


def _judge(llm: LLM, folder: Path, params: BeamSearchParams, which: Sequence[int] = (0, 1, 2)) -> set[int]:
    """All prompts side by side, `which` of them against transformers; the lengths that those sequences had."""
    params = replace(params, include_stop_str_in_output=True)
    outputs = llm.beam_search(PROMPTS, params)
    lengths = set()
    for prompt, output in [(PROMPTS[i], outputs[i]) for i in which]:
        tokens, scores = _expected(folder, prompt, params)
        ours = [each.tokens[len(prompt) :] for each in output.sequences]
        assert ours == tokens
        own = [each.cum_logprob / len(each.tokens[len(prompt) :]) ** params.length_penalty for each in output.sequences]
        assert own == pytest.approx(scores, abs=1e-3, rel=1e-4)
        lengths |= set(map(len, tokens))
    return lengths


@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_sequences_and_scores_are_those_of_transformers(llm: LLM, folder: Path, width: int, early: Any) -> None:
    lengths: set[int] = set()
    for number, penalty in enumerate((1.0, 0.0, 2.0, -1.0)):
        which = (number + width) % len(PROMPTS)
        free = llm.beam_search([PROMPTS[which]], BeamSearchParams(width, 20, ignore_eos=True))[0].sequences
        ends = [free[0].tokens[-13], free[-1].tokens[-5]][: 1 + number % 2]  # met by some of the best sequences
        params = BeamSearchParams(width, 20, length_penalty=penalty, early_stopping=early, stop_token_ids=ends)
        lengths |= _judge(llm, folder, params, [which])
    assert len(lengths) > 1, "no sequence met an end"


def test_ends_may_be_ignored_forbidden_or_added(llm: LLM, folder: Path) -> None:
    assert _judge(llm, folder, BeamSearchParams(4, 12, ignore_eos=True), [1]) == {12}
    assert min(_judge(llm, folder, BeamSearchParams(4, 16, min_tokens=9), [0])) >= 9
    first = llm.beam_search([PROMPTS[0]], BeamSearchParams(2, 8, ignore_eos=True))[0].sequences[0].tokens
    _judge(llm, folder, BeamSearchParams(4, 16, stop_token_ids=[first[-1], first[-4]]), [0])


@pytest.mark.parametrize("options", [{"prefix_cache": False}, {"max_num_batched_tokens": 7}, {"block_size": 32}])
def test_the_machine_under_it_changes_no_bit(llm: LLM, folder: Path, options: dict[str, Any]) -> None:
    """Small steps split the beams of a step, and what is cached, copied or chunked differs: scores to the last bit."""
    params = BeamSearchParams(5, 30, early_stopping="never")
    other = LLM(folder, dtype="float32", **{"max_num_seqs": 6, "kv_cache_memory_bytes": 2**24, **options})
    try:
        for _ in range(2):
            for one, two in zip(llm.beam_search(PROMPTS, params), other.beam_search(PROMPTS, params), strict=True):
                assert [each.tokens for each in one.sequences] == [each.tokens for each in two.sequences]
                assert [each.cum_logprob for each in one.sequences] == [each.cum_logprob for each in two.sequences]
    finally:
        other.close()


def test_beams_beside_others_and_put_back_for_them_say_the_same(llm: LLM, folder: Path) -> None:
    """A pool that holds a search and little more: whoever is put back computes again, and nobody's answer changes."""
    params = BeamSearchParams(4, 60, ignore_eos=True)
    alone = [llm.beam_search([prompt], params)[0] for prompt in PROMPTS]
    block_bytes = llm.plan.kv_bytes // llm.plan.num_blocks
    tight = LLM(folder, dtype="float32", max_num_seqs=24, max_model_len=96, kv_cache_memory_bytes=19 * block_bytes)
    num_preempted = 0
    schedule = tight.engine.scheduler.stats

    def counted(*args: Any) -> Any:
        nonlocal num_preempted
        stats = schedule(*args)
        num_preempted += stats.num_preempted
        return stats

    tight.engine.scheduler.stats = counted  # type: ignore[method-assign]
    for lane in (tight.engine.scheduler._ordinary, tight.engine.scheduler._flex):
        lane.entry._futures = lambda seats: [(1, len(seat.blocks), -1) for seat in seats]  # type: ignore[method-assign]
    try:
        together = tight.beam_search(PROMPTS, params)
        tight.engine.scheduler.check()
    finally:
        tight.close()
    assert num_preempted > 0
    for one, two in zip(alone, together, strict=True):
        assert [(each.tokens, each.cum_logprob) for each in one.sequences] == [
            (each.tokens, each.cum_logprob) for each in two.sequences
        ]


def test_what_a_search_cannot_take_is_refused_by_name(llm: LLM) -> None:
    for wrong, name in [
        (BeamSearchParams(4, 8, temperature=0.7), "temperature"),
        (BeamSearchParams(0, 8), "n"),
        (BeamSearchParams(25, 8), "n"),
        (BeamSearchParams(4, 8, length_penalty=float("nan")), "length_penalty"),
        (BeamSearchParams(4, 8, early_stopping="soon"), "early_stopping"),  # type: ignore[arg-type]
    ]:
        with pytest.raises((RequestError, UnsupportedField)) as refused:
            llm.beam_search(["a"], wrong)
        assert refused.value.param == name
    assert not llm.engine.has_work
    assert llm.generate("a", SamplingParams(max_tokens=2))[0].finished
