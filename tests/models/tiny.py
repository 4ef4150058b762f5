"""Tiny random models in Hugging Face form, made on the fly by transformers: weights, tokenizer, chat template.

Knows: torch and transformers, which the tests skip without. Does not know: the engine.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = (END_OF_TEXT, IM_START, IM_END)
MIN_TOKENIZER_SIZE = 256 + len(SPECIAL)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 258,
}


def make_tiny(
    folder: Path,
    family: str = "llama",
    *,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
    seed: int = 0,
    generation: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write a model of `family` (llama, qwen2, qwen3) into `folder` and return it.

    `overrides` are keys of the config; None removes a size given here. `dtype` is the checkpoint's. The weights are
    random with a spread that makes every row's logits differ by several units, so that greedy answers are no accident.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    sizes = {key: value for key, value in {**SIZES, **overrides}.items() if value is not None}
    config = getattr(transformers, f"{names[family]}Config")(**sizes)
    model = getattr(transformers, f"{names[family]}ForCausalLM")(config)
    _fill(torch, model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    if config.vocab_size >= MIN_TOKENIZER_SIZE:
        write_tokenizer(folder, config.vocab_size)
    return folder


def edit_config(folder: Path, remove: tuple[str, ...] = (), **values: Any) -> Path:
    """Change keys of config.json as another version of transformers would have written them."""
    path = folder / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in remove}
    path.write_text(json.dumps({**config, **values}))
    return folder


def _fill(torch: Any, model: Any, seed: int) -> None:
    """Matrices keep a row's variance, norms stand near one, biases matter, the head spreads logits by about 3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("bias"):
                weight.copy_(0.5 * noise)
            elif weight.dim() == 1:
                weight.copy_(1 + 0.2 * noise)
            else:
                gain = 3.0 if "embed" in name or "lm_head" in name else 1.0
                weight.copy_(gain * noise / weight.shape[1] ** 0.5)


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level BPE of exactly `vocab_size` ids: bytes, three special tokens, then pairs and triples of letters."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pairs = list(product(letters, letters))
    merges = (pairs + [(left + right, third) for (left, right), third in product(pairs, letters)])[
        : vocab_size - MIN_TOKENIZER_SIZE
    ]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *SPECIAL, *(a + b for a, b in merges)])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": END_OF_TEXT,
                "eos_token": IM_END,
                "add_bos_token": False,
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            }
        )
    )
