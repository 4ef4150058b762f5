"""Knows: which requests could never finish, however empty the engine. Does not know: who is here now."""

from __future__ import annotations

from quire.errors import ContextLengthExceeded, IdOutOfRange, RequestError
from quire.request import Request
from quire.scheduling.limits import SchedulerLimits


def refusal(request: Request, limits: SchedulerLimits, num_blocks: int) -> RequestError | None:
    """Why `request` may not enter at all, or None: then it can finish alone, in a pool of `num_blocks`."""
    return (
        _unknown_id(request, limits)
        or _too_long(request, limits)
        or _too_wide(request, limits)
        or _too_big(request, limits, num_blocks)
    )


def _unknown_id(request: Request, limits: SchedulerLimits) -> RequestError | None:
    told = () if request.resumed is None else [tokens for _, tokens in request.resumed.samples if tokens]
    for tokens in (request.prompt, *told):  # 100,000 ids are looked through in 2 ms
        if min(tokens) < 0 or max(tokens) >= limits.vocab_size:
            break
    else:
        return None
    return RequestError(
        "the prompt, or the answer that it goes on with, holds a token id that the model does not have",
        got=next(token for token in tokens if not 0 <= token < limits.vocab_size),
        allowed=f"0 to {limits.vocab_size - 1}",
        param="prompt",
        code=IdOutOfRange.default_code,
    )


def _too_long(request: Request, limits: SchedulerLimits) -> RequestError | None:
    if request.max_total_tokens <= limits.max_model_len:
        return None
    prompt_alone = len(request.prompt) >= limits.max_model_len
    return ContextLengthExceeded(
        "the prompt and the answer do not fit the model's context",
        got=_counts(request),
        allowed=f"{limits.max_model_len} tokens together",
        hint="Shorten the prompt." if prompt_alone else "Shorten the prompt or lower max_tokens.",
        param="prompt" if prompt_alone else "max_tokens",
    )


def _too_wide(request: Request, limits: SchedulerLimits) -> RequestError | None:
    if request.num_rows <= limits.max_num_seqs:
        return None
    return RequestError(
        "n is larger than the number of samples that run at once",
        got=request.num_rows,
        allowed=f"1 to {limits.max_num_seqs}",
        param="n",
    )


def _too_big(request: Request, limits: SchedulerLimits, num_blocks: int) -> RequestError | None:
    # The last token is drawn, never computed: it needs no slot.
    num_needed = limits.num_blocks(request.max_total_tokens - 1)
    if request.beams is not None:  # all of them run at once, and may have nothing but the prompt in common
        num_shared = min(num_needed, len(request.prompt) // limits.block_size)
        num_needed += (request.num_rows - 1) * (num_needed - num_shared)
    if num_needed <= num_blocks:
        return None
    return ContextLengthExceeded(
        "the prompt and the answer do not fit the KV cache",
        got=_counts(request),
        allowed=f"{num_blocks * limits.block_size + 1} tokens together"
        if request.beams is None
        else f"{num_blocks} blocks of {limits.block_size} tokens, where its beams may need {num_needed}",
        hint="Shorten the prompt or lower max_tokens; the operator can raise --kv-cache-memory-bytes.",
        param="max_tokens",
    )


def _counts(request: Request) -> str:
    return f"{len(request.prompt)} prompt tokens and {request.max_tokens} to generate"
