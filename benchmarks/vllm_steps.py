"""What vLLM's scheduler does in a real run, step by step.

    python benchmarks/vllm_steps.py MODEL < setting.json > steps.json     (a setting of `benchmarks/preemptions.py`)

The engine stands in this process and is asked for everything before its first step: nothing depends on time. Its
scheduler is only watched: after each step it is asked what it gave out and whom it put back.

Knows: vLLM. Does not know: quire.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # requests that come over a socket would come between steps
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def run(model: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Serve the setting's requests at once; its steps, and the engine's own count of preemptions."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=setting["max_model_len"],
        block_size=setting["block_size"],
        num_gpu_blocks_override=setting["num_blocks"] + 1,  # it never gives away its first block
        max_num_seqs=setting["max_num_seqs"],
        max_num_batched_tokens=setting["max_num_batched_tokens"],
        enable_prefix_caching=setting["prefix_cache"],
        disable_log_stats=False,
        kv_cache_memory_bytes=2**30,
    )
    core: Any = llm.llm_engine.engine_core
    scheduler = core.engine_core.scheduler
    steps, schedule = [], scheduler.schedule

    def watched(*args: Any, **named: Any) -> Any:
        output = schedule(*args, **named)
        if output.num_scheduled_tokens:
            steps.append([len(output.num_scheduled_tokens), output.total_num_scheduled_tokens, _put_back(output)])
        return output

    scheduler.schedule = watched
    rng, longest = random.Random(setting["seed"]), llm.model_config.get_vocab_size() // 2
    prompts = [
        {"prompt_token_ids": [rng.randrange(10, longest) for _ in range(size)]} for size in setting["num_prompt"]
    ]
    params = [SamplingParams(temperature=0.0, max_tokens=size, ignore_eos=True) for size in setting["num_output"]]
    start = time.monotonic()
    answers = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.monotonic() - start
    told = [metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"]
    found = {
        "num_preempted": int(told[0]),
        "num_steps": len(steps),
        "seconds": round(seconds, 1),
        "settings": _as_it_took_them(llm),
        "whole": all(
            len(answer.outputs[0].token_ids) == size
            for answer, size in zip(answers, setting["num_output"], strict=True)
        ),
        "steps": steps,
    }
    core.shutdown()
    return found


def _put_back(output: Any) -> int:
    return len(output.preempted_req_ids or ())


def _as_it_took_them(llm: Any) -> dict[str, Any]:
    """What the engine made of the settings: another version's defaults would make another count."""
    config = llm.llm_engine.vllm_config
    scheduling, cache = config.scheduler_config, config.cache_config
    names = ("max_num_seqs", "max_num_batched_tokens", "async_scheduling", "scheduler_reserve_full_isl", "watermark")
    more = ("long_prefill_token_threshold", "enable_chunked_prefill", "policy")
    told = {name: getattr(scheduling, name, None) for name in (*names, *more)}
    return told | {"block_size": cache.block_size, "num_gpu_blocks": cache.num_gpu_blocks}


def main() -> None:
    import vllm

    out, sys.stdout = sys.stdout, sys.stderr  # what it says of itself is not the answer
    setting = json.load(sys.stdin)
    found = run(sys.argv[1], setting)
    json.dump({"version": vllm.__version__, **found}, out)
    out.flush()
    os._exit(0)  # its worker may outlive an ordinary end


if __name__ == "__main__":
    main()
