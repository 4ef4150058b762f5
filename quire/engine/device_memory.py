"""The KV cache of a GPU is what is left: the largest steps are run once, what they took is measured, and the cache is
made of the rest, before anybody is told that the engine is ready.

Knows: a plan, a runner, what a device says of its memory. Does not know: how a step computes, CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from quire.engine.rescue import Runner
from quire.errors import NotEnoughMemory
from quire.plan import Plan
from quire.request import SamplingParams
from quire.step import Draw, Step, Work

TOKEN = 1  # any id
MARGIN_BYTES = 256 * 2**20  # fragments, and what other libraries take when they are first used
GRAPH_BYTES = 256 * 2**20  # nodes of at most 48 recorded steps
# Every link of the chain of a draw, so that all that it ever needs has been asked for once.
DEAREST = SamplingParams(
    temperature=1.0, top_p=0.9, top_k=1000, min_p=0.01, repetition_penalty=1.1, frequency_penalty=0.1, logprobs=20,
    logit_bias={0: 1.0}, seed=0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of a device: free by its own account, held by us now, held by us at most since `forget`."""

    free_bytes: int
    held_bytes: int
    peak_bytes: int


class Measured(Protocol):
    """A device that knows what its memory is used for."""

    def forget(self) -> None:
        """Give back what is kept for later; the peak begins anew."""
        ...

    def use(self) -> Use:
        """Now."""
        ...


def fit_pool(plan: Plan, device: Measured, make_runner: Callable[[int], Runner]) -> tuple[Plan, tuple[str, ...]]:
    """`plan` with as many blocks as there is memory for once the dearest steps have run, never more than planned; and
    what there is to say about it.

    `make_runner` makes a runner with a cache of so many blocks; it is used for the dry run and let go. Raises
    `NotEnoughMemory` where the longest sequence does not fit any more.
    """
    device.forget()
    before = device.use()
    steps = dearest_steps(plan)
    num_blocks = max(step.works[-1].block_table[-1] for step in steps) + 1
    runner = make_runner(num_blocks)
    block_bytes = plan.kv_bytes // plan.num_blocks
    held = before.held_bytes + num_blocks * block_bytes
    runner.run(steps[0])
    scratch = max(device.use().peak_bytes - held, 0)
    for step in steps[1:]:
        runner.run(step)
    activations = max(device.use().peak_bytes - held, 0)
    del runner
    device.forget()
    now = device.use()
    margin = MARGIN_BYTES + (0 if plan.enforce_eager else GRAPH_BYTES + scratch)  # recordings have scratch of their own
    room = min(plan.device_bytes - now.held_bytes, now.free_bytes) - activations - margin
    fits = max(room, 0) // block_bytes
    if fits >= plan.num_blocks:
        return plan, (f"activations measured: {activations / 2**20:.0f} MiB",)
    least = -(-plan.max_model_len // plan.block_size)
    if fits < least:
        raise NotEnoughMemory(
            "the KV cache cannot hold one sequence of the longest length beside the activations as measured",
            got=f"{fits * plan.block_size} tokens, activations of {activations / 2**20:.0f} MiB",
            allowed=f"{plan.max_model_len} tokens or more",
            hint="Lower --max-model-len or --max-num-batched-tokens, or raise --gpu-memory-utilization.",
        )
    note = (
        f"KV cache of {fits * plan.block_size:,} tokens, not {plan.kv_tokens:,}: activations take "
        f"{activations / 2**20:.0f} MiB as measured"
    )
    return replace(plan, num_blocks=fits, kv_bytes=fits * block_bytes), (note,)


def dearest_steps(plan: Plan) -> tuple[Step, ...]:
    """As many last tokens of the longest sequences, prompt tokens, and rows that draw, as a step may hold."""
    lengths, left = [], plan.max_num_batched_tokens
    while left > 0:
        lengths.append(min(left, plan.max_model_len))
        left -= lengths[-1]
    lengths = lengths[: plan.max_num_seqs]
    num_rows = min(plan.max_num_seqs, plan.max_num_batched_tokens)
    return _longest(0, num_rows, plan), _step(1, lengths, plan), _step(2, [1] * num_rows, plan)


def _step(number: int, lengths: list[int], plan: Plan) -> Step:
    works, first = [], 0
    for seq, length in enumerate(lengths):
        end = first + -(-length // plan.block_size)
        tokens = [TOKEN] * length
        works.append(Work(seq, tokens, 0, list(range(first, end)), Draw(DEAREST, (0,), tokens, length)))
        first = end
    return Step(number, tuple(works))


def _longest(number: int, num_rows: int, plan: Plan) -> Step:
    """Attention's scratch grows with the width of the block tables. Of each sequence one block stands for all."""
    start, num_blocks = plan.max_model_len - 1, -(-plan.max_model_len // plan.block_size)
    works = [Work(row, [TOKEN], start, [row] * num_blocks, Draw(DEAREST, (0,), [TOKEN], 1)) for row in range(num_rows)]
    return Step(number, tuple(works))
