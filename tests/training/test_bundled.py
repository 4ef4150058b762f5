"""The committed artefacts: complete, small, loadable elsewhere, and able to greet and to stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BUNDLED = Path(__file__).parents[2] / "quire" / "bundled"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
)
MAX_BYTES = 12_000_000
AWKWARD = (
    "",
    " ",
    "\n\n\t ",
    "naïve Straße žluťoučký",
    "日本語のテスト",
    "עברית عربى",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 \u200d\ufeff",
    "\x00\x7f",
    "1234567890",
    "  two  spaces ",
    "a\r\nb",
    '{"k": [1.5e-3]}',
    "\U0010ffff",
)


def test_all_files_are_there_and_small():
    assert [name for name in FILES if not (BUNDLED / name).is_file()] == []
    assert sum(path.stat().st_size for path in BUNDLED.iterdir() if path.is_file()) <= MAX_BYTES


def test_the_template_is_the_same_everywhere():
    shipped = (BUNDLED / "chat_template.jinja").read_text(encoding="utf-8")
    config = json.loads((BUNDLED / "tokenizer_config.json").read_text(encoding="utf-8"))
    source = Path(__file__).parents[2] / "training" / "chat_template.jinja"
    assert shipped == config["chat_template"] == source.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("text", AWKWARD)
def test_the_tokenizer_gives_back_every_text(text):
    tokenizers = pytest.importorskip("tokenizers", reason="reads tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_have_one_id_and_digits_stand_alone():
    tokenizers = pytest.importorskip("tokenizers", reason="reads tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"):
        assert len(tokenizer.encode(token).ids) == 1
    assert len(tokenizer.encode("2026").ids) == 4
    assert tokenizer.get_vocab_size() == json.loads((BUNDLED / "config.json").read_text())["vocab_size"]


def test_transformers_computes_the_same_logits_and_the_same_prompt():
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="compares with the Hugging Face implementation")
    from training.chat import render
    from training.checkpoint import load_model

    theirs = transformers.AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is quire?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == render(messages, add_generation_prompt=True)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    ours = load_model(BUNDLED).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours.head(ours(ids)), theirs(ids).logits, atol=2e-3, rtol=1e-3)


def test_the_model_greets_and_stops():
    pytest.importorskip("torch", reason="the evaluation computes with torch")
    from training.conversation import HeldOut, user
    from training.evaluate import Judge

    greeting = HeldOut(
        (user("Hello!"),), "Hello! How can I help you?", lambda answer: "help" in answer or "do for" in answer
    )
    score = Judge(BUNDLED).score("greeting", [greeting], limit=40)
    assert (score.num_right, score.num_stopped) == (1, 1)
