"""Many requests at once: output tokens a second on ShareGPT-like lengths; and prompts: their share of the matrix peak.

Knows: engines, `lengths.json`, the roof. Does not know: how a step is launched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import roof
from benchmarks.gpu.context import Context
from benchmarks.gpu.decode import ask, release
from benchmarks.gpu.engines import Running, build, serve
from benchmarks.gpu.models import guarded
from benchmarks.gpu.shapes import main_config
from quire.model_spec import ModelSpec
from quire.request import Request, SamplingParams
from quire.step import Draw, Step, Work

OUTPUT_TOKENS_S, SHARE_OF_PEAK = 16_000.0, 0.60
LENGTHS = Path(__file__).with_name("lengths.json")
GREEDY = SamplingParams(temperature=0.0, seed=0)


def lengths(num: int, seed: int = 0, most: int = 1024) -> list[tuple[int, int]]:
    """(prompt, answer) of `num` requests: each of the histogram's values as often as any other, in a random order."""
    held = json.loads(LENGTHS.read_text())
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.resize(held[name], num)) for name in ("prompt", "answer")]
    return [(min(int(prompt), most), min(int(answer), most)) for prompt, answer in zip(*columns, strict=True)]


def asked(num: int, vocab_size: int, most: int, seed: int = 0) -> list[Request]:
    """Random ids of those lengths, drawn at temperature 1."""
    return [
        ask(number, prompt, answer, vocab_size, 1.0) for number, (prompt, answer) in enumerate(lengths(num, seed, most))
    ]


def offline(context: Context) -> None:
    """A first round compiles and captures, at another seed; the second one counts."""
    num, most = (12, 24) if context.tiny else (2000, 1024)
    options = {
        "max_num_seqs": 8 if context.tiny else 256,
        "max_num_batched_tokens": 64 if context.tiny else 8192,
        "max_model_len": 2 * most + 64 if not context.tiny else 64,
        **({} if context.is_gpu else {"kv_cache_memory_bytes": 32 * 2**20, "threads": 2}),
    }
    running = build(context, main_config(context.tiny), **options)
    vocab_size = running.runner.model.spec.vocab_size
    serve(running.engine, asked(max(num // 8, 4), vocab_size, most, seed=1))
    requests = asked(num, vocab_size, most)
    begin = time.perf_counter()
    answers = serve(running.engine, requests)
    seconds = time.perf_counter() - begin
    num_tokens = sum(len(answer.tokens) for answer in answers.values())
    num_prompt = sum(len(request.prompt) for request in requests)
    why = f"{num} requests, {num_prompt / num:.0f} in and {num_tokens / num:.0f} out on average, {seconds:.1f} s"
    context.rows.add("offline, bf16", num_tokens / seconds, "out tokens/s", OUTPUT_TOKENS_S, why=why)
    context.rows.add("offline, bf16, prompts too", (num_tokens + num_prompt) / seconds, "tokens/s")


def prefill_ops(spec: ModelSpec, num_tokens: int) -> float:
    """Operations of a prompt: products of the layers for every token, the head for one, causal attention."""
    products = sum(outputs * inputs for outputs, inputs in spec.block_matrices) * spec.num_layers
    pairs = num_tokens * (num_tokens + 1) / 2
    attention = 4.0 * pairs * spec.q_size * spec.num_layers
    return 2.0 * products * num_tokens + 2.0 * spec.vocab_size * spec.hidden_size + attention


def prompt_step(number: int, length: int, vocab_size: int, block_size: int) -> Step:
    """One prompt, whole, whose last row draws."""
    tokens = np.random.default_rng(number).integers(3, vocab_size, length).tolist()
    blocks = list(range(-(-length // block_size)))
    return Step(number, (Work(number, tokens, 0, blocks, Draw(GREEDY, (0,), tokens, length)),))


def prompts(context: Context) -> None:
    """2,048 and 8,192 tokens, each in one step."""
    sizes: Sequence[int] = (16, 32) if context.tiny else (2048, 8192)
    options: dict[str, Any] = {"max_num_batched_tokens": sizes[-1], "max_model_len": sizes[-1], "max_num_seqs": 1}
    small = {} if context.is_gpu else {"kv_cache_memory_bytes": 32 * 2**20, "threads": 2}
    running = build(context, main_config(context.tiny), **options, **small)
    peak = roof.product_rate(context)
    context.rows.add("product in bfloat16, in this minute", peak / 1e12, "TFLOP/s")
    for length in sizes:
        seconds = prompt_seconds(context, running, length)
        share = prefill_ops(running.runner.model.spec, length) / seconds / peak
        context.rows.add(f"prompt of {length}, bf16", length / seconds, "tokens/s")
        context.rows.add(f"prompt of {length}, share of the matrix peak", share, "", SHARE_OF_PEAK)


def prompt_seconds(context: Context, running: Running, length: int) -> float:
    """Median of several steps, the first ones left out."""
    vocab_size, taken = running.runner.model.spec.vocab_size, []
    for number in range(3 if context.tiny else 12):
        step = prompt_step(number, length, vocab_size, running.plan.block_size)
        context.synchronize()
        begin = time.perf_counter()
        running.runner.run(step)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken[2:]))


def run(context: Context) -> None:
    """The part."""
    for what in (offline, prompts):
        guarded(context.rows, what.__name__, lambda what=what: what(context))
        release(context)
