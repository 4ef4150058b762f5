"""Log probabilities against transformers in float32: of answers and of prompts, offline and over HTTP; within 1e-3.

Knows: LLM, the server, transformers. Does not know: the runner.

Legend: T tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quire
from quire import LLM, SamplingParams
from quire.engine.grammars import ThreadKeeper
from quire.outputs import Logprob, RequestOutput
from quire.settings import EngineSettings
from tests.models.oracle import load_oracle
from tests.models.tiny import make_tiny
from tests.server.served import TOKENIZER, served

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

LIMIT = 1e-3
NUM_TOP = 20
BUNDLED = Path(quire.__file__).parent / "bundled"
FAMILIES = ("llama", "qwen2", "qwen3")
REAL = ("stories260K", "TinyStories-656K")
SMALL_STEPS: dict[str, Any] = {"dtype": "float32", "max_num_batched_tokens": 48, "max_num_seqs": 8}


class Oracle:
    """Log probabilities of transformers, by position; `error` grows with everything that is compared."""

    def __init__(self, folder: Path) -> None:
        self._model = load_oracle(folder)
        self.error = 0.0
        self.num_compared = 0

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        """logprobs_TV float64: row t is about token t + 1."""
        with torch.no_grad():
            logits_TV = self._model(torch.tensor([list(ids)])).logits[0].double()
        return np.asarray(torch.log_softmax(logits_TV, -1).numpy())

    def compare(self, exact_V: np.ndarray, token: int, told: Mapping[int, tuple[float, int]], num_top: int) -> None:
        """`told` is {id: (log probability, rank)}: the token and the `num_top` best; equal ones leave a choice."""
        best = np.sort(exact_V)[::-1]
        ranks = sorted(rank for _, rank in told.values())
        assert token in told
        assert ranks[:num_top] == list(range(1, min(num_top, exact_V.size) + 1))
        assert len(told) <= num_top + 1
        for each, (value, rank) in told.items():
            self.error = max(self.error, abs(value - exact_V[each]), abs(value - best[rank - 1]))
            self.num_compared += 1

    def check(self, at_least: int) -> None:
        print(f"max error {self.error:.1e} in {self.num_compared} log probabilities")
        assert self.num_compared >= at_least
        assert self.error < LIMIT


def plain(entry: Mapping[int, Logprob] | None) -> dict[int, tuple[float, int]]:
    assert entry is not None
    return {token: (each.logprob, each.rank or 0) for token, each in entry.items()}


def compare(oracle: Oracle, output: RequestOutput, num_top: int) -> None:
    """Prompt and every sample of one answer."""
    prompt = output.prompt_token_ids
    for sample in output.outputs:
        exact_TV = oracle.logprobs([*prompt, *sample.token_ids])
        assert exact_TV.std() > 1, "logits that are all alike would prove nothing"
        assert sample.logprobs is not None
        for place, (token, entry) in enumerate(zip(sample.token_ids, sample.logprobs, strict=True)):
            oracle.compare(exact_TV[len(prompt) - 1 + place], token, plain(entry), num_top)
        assert sample.cumulative_logprob is not None
        own = sum(entry[token].logprob for token, entry in zip(sample.token_ids, sample.logprobs, strict=True))
        assert abs(sample.cumulative_logprob - own) < 1e-9
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for place, token in enumerate(prompt[1:]):
        oracle.compare(exact_TV[place], token, plain(output.prompt_logprobs[place + 1]), num_top)


def run(folder: Path, lengths: Sequence[int], params: SamplingParams, **options: Any) -> Oracle:
    """Random prompts of these lengths together, in steps that cut the long ones; everything told is compared."""
    oracle = Oracle(folder)
    llm = LLM(folder, **{**SMALL_STEPS, **options})
    try:
        rng = random.Random(len(lengths))
        prompts = [[rng.randrange(llm.spec.vocab_size) for _ in range(length)] for length in lengths]
        for output in llm.generate(prompts, params):
            compare(oracle, output, params.logprobs or 0)
    finally:
        llm.close()
    return oracle


@pytest.mark.parametrize("family", FAMILIES)
def test_families(tmp_path: Path, family: str) -> None:
    folder = make_tiny(tmp_path, family, tie_word_embeddings=family == "qwen3")
    params = SamplingParams(n=2, seed=4, max_tokens=12, ignore_eos=True, logprobs=NUM_TOP, prompt_logprobs=NUM_TOP)
    oracle = run(folder, (1, 2, 63, 64, 65, 200), params)
    oracle.check(at_least=20 * (395 + 6 * 2 * 12 - 6))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_they_are_the_model_s_whatever_is_drawn_with(tmp_path: Path, temperature: float) -> None:
    """Temperature, penalties, biases, bans and truncation choose the token and leave what is told of it alone."""
    params = SamplingParams(
        temperature=temperature,
        top_p=0.8,
        top_k=60,
        min_p=0.01,
        repetition_penalty=1.7,
        presence_penalty=1.0,
        frequency_penalty=-0.5,
        logit_bias={5: 30.0, 6: -100.0, 7: 30.0},
        seed=1,
        max_tokens=16,
        min_tokens=16,
        logprobs=3,
        prompt_logprobs=3,
    )
    run(make_tiny(tmp_path, "qwen2"), (40, 7), params).check(at_least=3 * (45 + 32))


@pytest.mark.parametrize("name", REAL)
def test_real_checkpoints(shared_data: Path, name: str) -> None:
    folder = shared_data / "models" / name
    params = SamplingParams(seed=2, max_tokens=40, logprobs=NUM_TOP, prompt_logprobs=NUM_TOP)
    oracle = Oracle(folder)
    llm = LLM(folder, **SMALL_STEPS)
    try:
        for output in llm.generate(["Once upon a time", "Tom had a red ball. He " * 6], params):
            compare(oracle, output, NUM_TOP)
    finally:
        llm.close()
    oracle.check(at_least=20 * 60)


def test_the_bundled_model() -> None:
    params = SamplingParams(seed=2, max_tokens=40, ignore_eos=True, logprobs=NUM_TOP, prompt_logprobs=NUM_TOP)
    run(BUNDLED, (5, 150), params).check(at_least=20 * (80 + 153))


def test_over_http() -> None:
    """Chat and completions, whole: the numbers are the oracle's, under the tokens' names and ids."""
    oracle = Oracle(BUNDLED)
    engine = EngineSettings(dtype="float32", max_model_len=512, max_num_seqs=8, max_num_batched_tokens=64)
    with served(engine=engine, keep=ThreadKeeper) as server:
        asked = {"max_tokens": 12, "temperature": 1, "seed": 5, "return_token_ids": True, "prompt_logprobs": NUM_TOP}
        text = server.complete(prompt="The fox ran. " * 20, echo=True, logprobs=NUM_TOP, **asked).json()
        chat = server.chat(logprobs=True, top_logprobs=NUM_TOP, **asked).json()
    choice = text["choices"][0]
    ids = [*choice["prompt_token_ids"], *choice["token_ids"]]
    exact_TV = oracle.logprobs(ids)
    compare_told_prompt(oracle, exact_TV, choice["prompt_token_ids"], choice["prompt_logprobs"])
    logprobs = choice["logprobs"]
    assert [logprobs[name][0] for name in ("token_logprobs", "top_logprobs")] == [None, None]
    for place, token in enumerate(ids[1:]):
        best = dict(enumerate(sorted(logprobs["top_logprobs"][place + 1].values(), reverse=True), start=1))
        oracle.error = max(oracle.error, abs(logprobs["token_logprobs"][place + 1] - exact_TV[place, token]))
        compare_values(oracle, exact_TV[place], list(best.values())[:NUM_TOP])
    entries, message = chat["choices"][0]["logprobs"]["content"], chat["choices"][0]
    prompt = chat["prompt_token_ids"]
    exact_TV = oracle.logprobs([*prompt, *message["token_ids"]])
    compare_told_prompt(oracle, exact_TV, prompt, chat["prompt_logprobs"])
    for place, (token, entry) in enumerate(zip(message["token_ids"], entries, strict=True)):
        exact_V = exact_TV[len(prompt) - 1 + place]
        assert bytes(entry["bytes"]) == TOKENIZER.token_bytes(token)
        oracle.error = max(oracle.error, abs(entry["logprob"] - exact_V[token]))
        compare_values(oracle, exact_V, [each["logprob"] for each in entry["top_logprobs"]])
    oracle.check(at_least=2 * 20 * (len(choice["prompt_token_ids"]) + 10))


def compare_told_prompt(oracle: Oracle, exact_TV: np.ndarray, prompt: list[int], told: list[Any]) -> None:
    assert len(told) == len(prompt)
    assert told[0] is None
    for place, (token, entry) in enumerate(zip(prompt[1:], told[1:], strict=True)):
        assert next(iter(entry)) == str(token)
        assert all(each["decoded_token"] == TOKENIZER.token_text(int(key)) for key, each in entry.items())
        values = {int(key): (each["logprob"], each["rank"]) for key, each in entry.items()}
        oracle.compare(exact_TV[place], token, values, NUM_TOP)


def compare_values(oracle: Oracle, exact_V: np.ndarray, told: list[float]) -> None:
    assert len(told) == NUM_TOP
    oracle.error = max(oracle.error, float(np.abs(np.sort(exact_V)[::-1][:NUM_TOP] - told).max()))
    oracle.num_compared += NUM_TOP
