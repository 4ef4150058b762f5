"""Correctness of whole models: in float32 token for token those of plain torch on the CPU, in every family, through
scheduler, cache and sampler; in the other precisions as near as rounding leaves them; in the batch-invariant mode the
same bits alone and in company.

Knows: engines, random models. Does not know: kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gpu import workers
from benchmarks.gpu.context import Context
from benchmarks.gpu.engines import Answer, Running, build, serve
from benchmarks.gpu.rows import Writer, told
from benchmarks.gpu.shapes import ARCHITECTURES, tiny_config
from quire.request import Request, SamplingParams

LENGTHS = (1, 7, 16, 17, 40, 70)
PRECISIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "fp8": {"dtype": "bfloat16", "quantization": "fp8"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int4": {"dtype": "bfloat16", "quantization": "int4"},
    "int8 keys": {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
    "fp8 keys": {"dtype": "bfloat16", "kv_cache_dtype": "fp8"},
}
ALLOWED_LOGPROB = 0.35  # of a first token, between two devices that add in different orders and round to bfloat16
FIXED = {"max_num_seqs": 8, "max_model_len": 256, "max_num_batched_tokens": 64, "kv_cache_memory_bytes": 16 * 2**20}


def requests(vocab_size: int, tokens: int) -> list[Request]:
    """Greedy and drawn, penalised, two samples of one prompt; with log probabilities and without."""
    ways = (
        SamplingParams(temperature=0.0, seed=1, logprobs=2),
        SamplingParams(temperature=0.9, top_p=0.9, top_k=40, seed=2),
        SamplingParams(temperature=0.7, repetition_penalty=1.3, frequency_penalty=0.2, seed=3, logprobs=0),
        SamplingParams(temperature=0.0, seed=4),
        SamplingParams(temperature=1.0, min_p=0.02, seed=5),
        SamplingParams(temperature=0.8, seed=6, logprobs=5),
    )
    rng = np.random.default_rng(2)
    return [
        Request(
            f"r{number}",
            tuple(rng.integers(3, vocab_size, length).tolist()),
            replace(way, max_tokens=tokens, ignore_eos=True),
        )
        for number, (length, way) in enumerate(zip(LENGTHS, ways, strict=True))
    ]


def make(context: Context, device: str, config: dict[str, Any], **options: Any) -> Running:
    """An engine whose random weights are those of every other device."""
    import torch

    there = replace(context, device=device)
    fixed = {**FIXED, "threads": 2} if device != "cuda" else FIXED
    return build(there, config, torch.device("cpu"), **{**fixed, **options})


def family(context: Context, name: str, tokens: int) -> None:
    """In float32, token for token."""
    sizes = {"head_dim": 64, "num_key_value_heads": 1} if name == "qwen3" else {}
    config = tiny_config(name, **sizes)
    asked = requests(config["vocab_size"], tokens)
    ours = serve(make(context, context.device, config, dtype="float32").engine, asked)
    theirs = serve(make(context, "torch:cpu", config, dtype="float32").engine, asked)
    wrong = [each for each in ours if ours[each].tokens != theirs[each].tokens]
    context.rows.check(f"{name} in float32, token for token", len(wrong), len(asked), ", ".join(wrong))


def precision(context: Context, name: str, tokens: int) -> None:
    """Log probabilities of the first tokens beside those of plain torch on the CPU in the same precision."""
    config, options = tiny_config(), PRECISIONS[name]
    asked = [request for request in requests(config["vocab_size"], tokens) if request.params.logprobs is not None]
    ours = serve(make(context, context.device, config, **options).engine, asked)
    theirs = serve(make(context, "torch:cpu", config, **options).engine, asked)
    off = max(first_difference(ours[request.id], theirs[request.id]) for request in asked)
    context.rows.check(
        f"llama, {name}, near plain torch on the CPU",
        int(not off <= ALLOWED_LOGPROB),
        1,
        f"first tokens' log probabilities differ by {off:.2g} at most, allowed {ALLOWED_LOGPROB}",
    )


def first_difference(one: Answer, other: Answer) -> float:
    """Of the log probability of a first token; where two were next to equal, another one may have been drawn."""
    first, second = one.logprobs[0], other.logprobs[0]
    if first.token == second.token:
        return abs(first.logprob - second.logprob)
    told = dict(second.top)
    return abs(first.logprob - told.get(first.token, second.logprob))


def invariance(context: Context, name: str, tokens: int) -> None:
    """The same bits alone and in company, in the mode that promises it."""
    config = tiny_config()
    asked = requests(config["vocab_size"], tokens)
    running = make(context, context.device, config, batch_invariant=True, **PRECISIONS[name])
    together = serve(running.engine, asked)
    wrong = []
    for request in asked:
        alone = serve(running.engine, [request])[request.id]
        if (alone.tokens, alone.logprobs) != (together[request.id].tokens, together[request.id].logprobs):
            wrong.append(request.id)
    context.rows.check(f"llama, {name}, the same bits alone", len(wrong), len(asked), ", ".join(wrong))


COMPARISONS = {"family": family, "precision": precision, "invariance": invariance}


def compare(context: Context, what: str, name: str) -> None:
    """One of them."""
    tokens = 4 if context.tiny else 40
    guarded(context.rows, f"{what}: {name}", lambda: COMPARISONS[what](context, name, tokens))


def run(context: Context) -> None:
    """The part."""
    tasks = [("family", name) for name in ARCHITECTURES] + [("precision", name) for name in PRECISIONS]
    tasks += [("invariance", name) for name in ("bfloat16", "int8")]
    for found in workers.spread(context, compare, tasks):
        for row in found:
            context.rows.put(row)


def guarded(rows: Writer, name: str, what: Any) -> None:
    """One that fails must not hide the others."""
    try:
        what()
    except Exception as problem:  # noqa: BLE001 - told in its row
        rows.fail(name, told(problem))
