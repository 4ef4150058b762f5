"""Real weights: 200 greedy tokens equal to transformers' in float32, and they are a story."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.oracle import oracle_greedy
from tests.models.stage import Stage

pytest.importorskip("torch")
pytest.importorskip("transformers")

OPENING = "Once upon a time"


@pytest.mark.parametrize("name", ["stories260K", "TinyStories-656K", "stories260K-hd64", "TinyStories-656K-hd64"])
def test_greedy_story(shared_data: Path, name: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = shared_data / "models" / name
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = [1, *tokenizer.encode(OPENING, add_special_tokens=False).ids]
    with Stage(folder) as stage:
        ours = stage.greedy(0, prompt, 200)
    assert ours == oracle_greedy(folder, prompt, 200)
    text = tokenizer.decode(ours)
    assert len(text.split()) > 60
    assert "Lily" in text
    assert " She " in text
