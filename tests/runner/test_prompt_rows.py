"""Prompt log probabilities take the same memory whatever the prompt's length: a bounded slice of logits at a time,
and what a step computed leaves with it. (benchmarks/prompt_logprobs.py shows the same as resident memory.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire import LLM, SamplingParams
from quire.plan import HEAD_ROWS
from quire.request import Request
from tests.models.tiny import make_tiny

pytest.importorskip("torch")

PARAMS = SamplingParams(temperature=0, seed=1, max_tokens=1, prompt_logprobs=5)


class Counted:
    """A model that notes how many rows of logits are made at once."""

    def __init__(self, model: Any, asked: list[int]) -> None:
        self._model, self._asked = model, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, forward: Any, hidden_TH: np.ndarray, rows_R: np.ndarray) -> Any:
        self._asked.append(len(rows_R))
        return self._model.logits(forward, hidden_TH, rows_R)


@pytest.mark.parametrize("step_tokens", [16, 512])
def test_logits_of_a_prompt_are_made_in_slices(tmp_path: Path, step_tokens: int) -> None:
    folder = make_tiny(tmp_path, "llama", max_position_embeddings=4096)
    llm = LLM(folder, dtype="float32", max_num_batched_tokens=step_tokens, max_num_seqs=4)
    runner: Any = llm.engine.runner
    asked: list[int] = []
    runner.model = Counted(runner.model, asked)
    sizes = []
    try:
        for number, length in enumerate((600, 4000)):
            prompt = tuple(7 * place % 300 for place in range(length))
            llm.engine.add(Request(str(number), prompt, PARAMS), 0.0)
            told = []
            while llm.engine.has_work:
                deltas = llm.engine.advance(0.0) or ()
                news = [entry for delta in deltas for entry in delta.prompt_logprobs]
                assert len(news) <= step_tokens, "a step tells what it computed, then and there"
                told += [entry.token for entry in news]
                assert told
            assert told == list(prompt[1:])
            sizes.append(runner.machine.arena.num_bytes)
    finally:
        llm.close()
    assert max(asked) == min(HEAD_ROWS, step_tokens)
    assert sizes[0] == sizes[1], "the longer prompt needed no larger buffer"
