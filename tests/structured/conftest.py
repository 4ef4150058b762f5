"""The bundled model's vocabulary, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import quire
from quire.model_spec import read_model_spec
from quire.structured.vocabulary import Vocabulary
from quire.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def words() -> Vocabulary:
    folder = Path(quire.__file__).parent / "bundled"
    spec = read_model_spec(folder)
    return Vocabulary(Tokenizer.from_folder(folder), spec.vocab_size, spec.eos_ids)
