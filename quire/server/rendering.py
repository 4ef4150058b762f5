"""What an entry point would compute, shown: the exact prompt, its ids, and every default in effect.

Knows: jobs. Does not know: how they are made (`translate.py`), engines.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quire.request import Request
from quire.server.service import Service
from quire.server.translate import Job


def rendered(service: Service, job: Job) -> dict[str, Any]:
    """A job as JSON. Of several prompts each has an entry of its own in `prompts`."""
    speech = job.plan.speech
    prompts = [_prompt(service, *each) for each in zip(job.requests, job.texts, strict=True)]
    head = {"object": f"{job.plan.kind}.render", "model": job.plan.model}
    if len(prompts) > 1:
        return {**head, "prompts": prompts, "sampling": _sampling(job.requests[0])}
    constraint = job.requests[0].constraint
    shown: dict[str, Any] = {
        **head,
        **prompts[0],
        "sampling": _sampling(job.requests[0]),
        "grammar": None if constraint is None else constraint.grammar,
    }
    if job.plan.kind == "chat":
        detected = service.spoken.detected
        shown |= {
            "template": service.template.digest,
            "tool_format": detected.tool_format,
            "reasoning_format": detected.reasoning_format,
            "in_reasoning": speech is not None and speech.in_thought,
        }
    return shown


def _prompt(service: Service, request: Request, text: str | None) -> dict[str, Any]:
    """The text that was encoded and its ids; where ids were given, what they read as."""
    if text is None:
        text = service.tokenizer.decode(request.prompt, skip_special_tokens=False)
    told = {"prompt": text, "token_ids": request.prompt, "num_tokens": len(request.prompt)}
    return {**told, "num_public_tokens": request.num_public_tokens} if service.public.prefixes else told


def _sampling(request: Request) -> dict[str, Any]:
    """Every sampling parameter as it is in effect; a seed that was not asked for is a fresh one each time."""
    return {name: value for name, value in asdict(request.params).items() if value is not None}
