"""From nothing to a first token: a process is started on a checkpoint that the suite has written, and asked at once.

What is counted: Python, torch, CUDA, the plan, reading and packing the weights, the dry run, the first prompt and the
first draw, compiling included (Triton's cache is emptied). Not counted: a tokenizer and HTTP, which a bare machine has
not. The checkpoint has just been written, so the system may still hold it in memory.

Knows: safetensors' layout, the child's lines. Does not know: how an engine starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.context import Context
from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.shapes import LLAMA_8B, random_tensor, spec_of, tiny_config
from quire.model_spec import ModelSpec

START_S = 20.0
SPARE_BYTES = 4 * 2**30
LIMIT_S = 240.0


def named_shapes(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of a Llama checkpoint."""
    hidden, wide = spec.hidden_size, spec.intermediate_size
    yield "model.embed_tokens.weight", (spec.vocab_size, hidden)
    for number in range(spec.num_layers):
        layer = f"model.layers.{number}"
        for name, size in (("q_proj", spec.q_size), ("k_proj", spec.kv_size), ("v_proj", spec.kv_size)):
            yield f"{layer}.self_attn.{name}.weight", (size, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, spec.q_size)
        for name in ("gate_proj", "up_proj"):
            yield f"{layer}.mlp.{name}.weight", (wide, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, wide)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (spec.vocab_size, hidden)


def write_checkpoint(folder: Path, config: dict[str, Any], where: Any) -> int:
    """config.json and one safetensors file of random bfloat16 weights made on `where`; its bytes."""
    import torch

    spec = spec_of(config)
    shapes = list(named_shapes(spec))
    header, end = dict[str, Any](), 0
    for name, shape in shapes:
        size = 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            weight = random_tensor(name, shape, where).to(torch.bfloat16)
            file.write(weight.view(torch.uint8 if weight.dim() > 1 else torch.int16).cpu().numpy().data)
    return end


def config_that_fits(context: Context, folder: Path) -> tuple[dict[str, Any], str]:
    """The 8B shape, or as many of its layers as there is room for; and what to say about it."""
    if context.tiny:
        return tiny_config(), ""
    spec = spec_of(LLAMA_8B)
    room = shutil.disk_usage(folder).free - SPARE_BYTES
    layer = 2 * sum(outputs * inputs for outputs, inputs in spec.block_matrices)
    ends = 4 * spec.vocab_size * spec.hidden_size
    layers = min(spec.num_layers, max((room - ends) // layer, 1))
    said = "" if layers == spec.num_layers else f"the disk has room for {layers} of {spec.num_layers} layers alone; "
    return {**LLAMA_8B, "num_hidden_layers": int(layers)}, said


def first_token(context: Context, folder: Path, cache: Path) -> dict[str, Any]:
    """Seconds from starting the child to its first token, and the child's own account. Raises RuntimeError."""
    environ = {**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.gpu.first_token", str(folder), "--device", context.device]
    begin = time.perf_counter()
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if told.returncode:
        raise RuntimeError(told.stderr.strip().splitlines()[-1] if told.stderr.strip() else "no word")
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return {**found, "whole_s": time.perf_counter() - begin}


def run(context: Context) -> None:
    """The part: once with Triton's cache empty, once with what the first start has left there."""
    with tempfile.TemporaryDirectory(prefix="quire-start-") as held:
        folder = Path(held)
        config, said = config_that_fits(context, folder)
        (folder / "model").mkdir()
        num_bytes = write_checkpoint(folder / "model", config, context.torch)
        if context.is_gpu:
            import torch

            torch.cuda.empty_cache()
        for name, target in (("nothing compiled before", START_S), ("kernels compiled before", START_S)):
            found = first_token(context, folder / "model", folder / "triton")
            seconds = found["whole_s"] - found["after_s"]
            parts = ", ".join(f"{key} {value:.1f}" for key, value in found["marks"].items())
            why = f"{said}{num_bytes / 1e9:.1f} GB read; seconds since start: {parts}"
            context.rows.add(f"start to first token, {name}", seconds, "s", target, most=True, why=why)
