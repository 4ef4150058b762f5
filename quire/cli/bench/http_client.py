"""One streamed request to an OpenAI-compatible server, timed.

Knows: HTTP, server-sent events and the fields every such server has. Does not know: when to send, or what is measured.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from quire.cli.bench.workload import Ask


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to ask. `url` is the server's root or its /v1; `model` None asks the server for its first.

    `token_ids` asks for the ids too (vLLM's field): then a token that is half a character is told when it is drawn.
    `only_token` is drawn always: text that can be read from weights that are random, on every server.
    """

    url: str
    model: str
    chat: bool = False
    ignore_eos: bool = False
    api_key: str | None = None
    token_ids: bool = False
    only_token: int | None = None
    deadline_ms: float | None = None
    user: str | None = None
    service_tier: str | None = None

    @property
    def base(self) -> str:
        """The root that ends in /v1."""
        root = self.url.rstrip("/")
        return root if root.endswith("/v1") else f"{root}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return key if self.deadline_ms is None else {**key, "x-quire-deadline-ms": f"{self.deadline_ms:g}"}

    def body(self, ask: Ask) -> dict[str, Any]:
        """The request's JSON: greedy, streamed, with usage."""
        text = {"messages": [{"role": "user", "content": ask.prompt}]} if self.chat else {"prompt": ask.prompt}
        asked = {"ignore_eos": self.ignore_eos, "return_token_ids": self.token_ids}
        extra: dict[str, Any] = {name: True for name, wanted in asked.items() if wanted}
        if self.only_token is not None:
            extra["logit_bias"] = {str(self.only_token): 100}
        if self.user is not None:
            extra["user"] = self.user
        if self.service_tier is not None:
            extra["service_tier"] = self.service_tier
        options = {"max_tokens": ask.max_tokens, "temperature": 0, "stream": True}
        return {"model": self.model, **text, **options, "stream_options": {"include_usage": True}, **extra}

    @property
    def path(self) -> str:
        """The endpoint."""
        return f"{self.base}/{'chat/completions' if self.chat else 'completions'}"


@dataclass(slots=True)
class Outcome:
    """What became of one request. All times are seconds since the run's start; `due_s` is when it should have gone out.

    Waiting is counted from `due_s`, not from when this client found the time to send: a slow client or server that
    delays later requests must not make their waiting invisible.
    """

    due_s: float
    sent_s: float = 0.0
    chunk_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    failure: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Due to first text."""
        return self.chunk_s[0] - self.due_s if self.chunk_s else None

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece of text and the next."""
        return [later - earlier for earlier, later in zip(self.chunk_s, self.chunk_s[1:], strict=False)]


async def send(
    client: httpx.AsyncClient, target: Target, ask: Ask, start: float, outcome: Outcome | None = None
) -> Outcome:
    """Send `ask` now and read its stream to the end. Never raises for what the server or the network does.

    `outcome`, if given, is filled while the stream is read: for those who will not wait for its end.
    """
    outcome = outcome or Outcome(ask.at_s)
    outcome.sent_s = time.perf_counter() - start
    try:
        async with client.stream("POST", target.path, json=target.body(ask), headers=target.headers) as response:
            if response.status_code != 200:
                outcome.failure = f"HTTP {response.status_code}"
            else:
                await _read(response, outcome, start)
    except httpx.HTTPError as problem:
        outcome.failure = type(problem).__name__
    outcome.end_s = time.perf_counter() - start
    if outcome.failure is None and not outcome.chunk_s:
        outcome.failure = "no text"
    return outcome


async def _read(response: httpx.Response, outcome: Outcome, start: float) -> None:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            _note(json.loads(data), outcome, time.perf_counter() - start)
        except (ValueError, AttributeError, TypeError):
            outcome.failure = "a chunk that is not JSON of the API"
            return
    outcome.failure = outcome.failure or "the stream ended without [DONE]"


def _note(chunk: dict[str, Any], outcome: Outcome, at_s: float) -> None:
    if chunk.get("error"):
        outcome.failure = f"error in the stream: {chunk['error'].get('code')}"
    for choice in chunk.get("choices") or ():
        delta, ids = choice.get("delta") or {}, choice.get("token_ids")
        if ids:
            outcome.chunk_s += [at_s] * len(ids)
        elif choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"):
            outcome.chunk_s.append(at_s)
    usage = chunk.get("usage")
    if usage:
        outcome.num_prompt_tokens = usage.get("prompt_tokens", 0)
        outcome.num_output_tokens = usage.get("completion_tokens", 0)
