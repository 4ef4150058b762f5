"""What transformers computes for the same folder: the other opinion that the models are held against.

Knows: torch and transformers. Does not know: anything of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def load_oracle(folder: Path, dtype: str = "float32") -> Any:
    """The model in evaluation mode, computing in `dtype`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # its pool spins, and these models are too small to share
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def oracle_logits(folder: Path, ids: Sequence[int], dtype: str = "float32") -> np.ndarray:
    """[len(ids), V] float32."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return np.asarray(load_oracle(folder, dtype)(torch.tensor([list(ids)])).logits[0].float().numpy())


def oracle_greedy(folder: Path, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """Greedy tokens in float32, end of text ignored."""
    torch = pytest.importorskip("torch")
    model = load_oracle(folder)
    tokens: list[int] = []
    step, cache = list(prompt), None
    with torch.no_grad():
        for _ in range(num_tokens):
            answer = model(torch.tensor([step]), past_key_values=cache, use_cache=True)
            cache = answer.past_key_values
            step = [int(answer.logits[0, -1].argmax())]
            tokens += step
    return tokens
