"""`transformers` with its continuous batching, on the same machine, the same shape, the same lengths: what quire
stands beside.

Knows: transformers' `generate_batch`. Does not know: quire's engine.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.context import Context
from benchmarks.gpu.rows import told
from benchmarks.gpu.shapes import main_config
from benchmarks.gpu.throughput import asked

NAME = "transformers, continuous batching, bf16"
WAYS = ("flash_attention_2", "paged|sdpa", "sdpa_paged", "sdpa", "eager")


def make_model(config: dict[str, Any], where: Any, attention: str) -> Any:
    """Random weights in bfloat16, made on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    known = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype")}
    described = LlamaConfig(**known, attn_implementation=attention)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with where:
            return LlamaForCausalLM(described).eval()
    finally:
        torch.set_default_dtype(before)


def generate(model: Any, prompts: list[list[int]], num_tokens: int, options: dict[str, Any]) -> int:
    """Output tokens of these prompts, `num_tokens` each."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cache=True
    )
    answers = model.generate_batch(inputs=prompts, generation_config=config, progress_bar=False, **options)
    return sum(len(answer.generated_tokens) for answer in answers.values())


def limits(context: Context) -> dict[str, Any]:
    """A small cache where memory is a test's."""
    if not context.tiny:
        return {}
    from transformers import ContinuousBatchingConfig

    return {"continuous_batching_config": ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64), "warmup": False}


def rate(context: Context, attention: str, num: int) -> float:
    """Output tokens a second. Every answer is as long as the mean: `generate_batch` takes one length for all."""
    model = make_model(main_config(context.tiny), context.torch, attention)
    requests = asked(num, model.config.vocab_size, 24 if context.tiny else 1024)
    prompts = [list(request.prompt) for request in requests]
    mean = round(sum(request.params.max_tokens or 0 for request in requests) / num)
    generate(model, prompts[: max(num // 8, 2)], 4 if context.tiny else 16, limits(context))
    begin = time.perf_counter()
    num_tokens = generate(model, prompts, mean, limits(context))
    return num_tokens / (time.perf_counter() - begin)


def run(context: Context) -> None:
    """The part: the fastest way of attending that this transformers has here."""
    if find_spec("transformers") is None:
        context.rows.skip(NAME, "transformers is not installed")
        return
    from transformers import LlamaForCausalLM

    if not hasattr(LlamaForCausalLM, "generate_batch"):
        context.rows.skip(NAME, f"transformers {version('transformers')} has no generate_batch")
        return
    problems = []
    for attention in WAYS[-2:] if context.tiny else WAYS:
        if attention == "flash_attention_2" and find_spec("flash_attn") is None:
            continue
        try:
            found = rate(context, attention, 4 if context.tiny else 500)
        except Exception as problem:  # noqa: BLE001 - another way may do
            problems.append(f"{attention}: {told(problem)}")
            continue
        if found > 0:
            why = f"transformers {version('transformers')}, {attention}"
            context.rows.add(NAME, found, "out tokens/s", why=why)
            return
        problems.append(f"{attention}: no tokens came")
    context.rows.skip(NAME, "; ".join(problems)[:400])
