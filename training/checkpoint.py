"""The model's folder: config, generation defaults and weights under their Hugging Face names.

Knows file formats; knows no training.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer

from training.chat import END_OF_TEXT, TURN_END
from training.model import Llama, Shape
from training.tokenizer import write_json

PREFIX = "model."  # LlamaForCausalLM keeps the network under this name


def save_model(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors (bf16, the tied head stored once)."""
    shape = model.shape
    ids = {
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": shape.norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }
    write_json(folder / "config.json", config)
    generation = {**ids, "eos_token_id": [ids["eos_token_id"], ids["bos_token_id"]]}
    generation |= {"do_sample": True, "temperature": 0.3, "top_p": 0.9}
    write_json(folder / "generation_config.json", generation)
    tensors = {PREFIX + name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def load_model(folder: Path) -> Llama:
    """The model of such a folder, in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        context=config["max_position_embeddings"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
    )
    model = Llama(shape)
    tensors = load_file(str(folder / "model.safetensors"))
    model.load_state_dict({name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()})
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
