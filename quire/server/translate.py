"""A body to what the engine computes and how the answer is told: the only place where OpenAI's words become ours.

Knows: OpenAI's defaults, the model's own, the context's length. Does not know: deltas, chunks, HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import UNSET, UnsetType

from quire.errors import ContextLengthExceeded, QuireError, RequestError, UnsupportedField
from quire.limits import MAX_CHOICES, MAX_LOGPROBS, MAX_N, MAX_SALT_CHARACTERS, MAX_USER_CHARACTERS
from quire.request import MAX_PRIORITY, Request, SamplingParams
from quire.server import fields
from quire.server.calling import read_calling
from quire.server.door import Visit
from quire.server.forms import form_of_answer
from quire.server.held import Held, cut, held_to, repetition
from quire.server.prompts import Prompt, check_ids, encode_chat, encode_prompt, split_prompts
from quire.server.schema import (
    ChatBody,
    CompletionBody,
    GenerationBody,
    StreamUsage,
    stream_usage,
)
from quire.server.service import Service
from quire.server.several import beams_of, sampled, width_of
from quire.server.speech import Speech
from quire.server.terms import Terms

COMPLETION_TOKENS = 16  # OpenAI's default for completions


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """How an answer is told. `echoes` holds the prompts' texts where they are told too. `service_tier` is the one that
    was used, where one was asked for.

    `num_top` is how many likeliest tokens stand beside each token, None without logprobs; `prompt_top` beside each of
    the prompt in vLLM's `prompt_logprobs`. With `prompt_only` the
    answer is the echo alone (max_tokens=0). Choice i*n + j is sample j of prompt i. `speech` tells content,
    reasoning and calls apart; None where all is content.
    """

    kind: Literal["chat", "completion"]
    id: str
    created: int
    model: str
    stream: bool
    usage: StreamUsage
    n: int
    num_top: int | None = None
    prompt_top: int | None = None
    echoes: tuple[str, ...] | None = None
    prompt_only: bool = False
    token_ids: bool = False
    tokens_as_ids: bool = False
    fingerprint: str | None = None
    service_tier: Literal["default", "flex"] | UnsetType = UNSET
    speech: Speech | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request's work: its engine requests (one a prompt), the plan of its answer, and the prompts' texts."""

    requests: tuple[Request, ...]
    plan: ReplyPlan
    texts: tuple[str | None, ...] = ()


async def chat_job(service: Service, body: ChatBody, visit: Visit, terms: Terms) -> Job:
    """Messages to one engine request."""
    plan = _plan(service, body, "chat")
    num_top = _chat_logprobs(body)
    _check_turn(service, body, terms)
    params = _sampling(service, body, num_top)
    calling = read_calling(
        body.tools, body.tool_choice, body.parallel_tool_calls, service.settings.unknown_fields == "warn"
    )
    _enter(service, visit, 1, body, terms)
    prompt = await encode_chat(service, body, calling, must_fit=body.truncate_prompt_tokens is None)
    content = await form_of_answer(service, body)
    speech = service.spoken.speech(
        calling,
        prompt.text or "",
        body.thinking_token_budget,
        body.include_reasoning,
        None if content is None else content.grammar,
    )
    name = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    prompt = cut(service, prompt, params, asked)
    room = _room(service, prompt, "messages")
    default = min(room, service.defaults.max_new_tokens or room)
    params = _with_max_tokens(params, default if asked is None else asked, name)
    held = await held_to(service, speech, content, params, terms.tenant(body.user), body.use_beam_search)
    request = _request(service, plan, body, prompt, params, terms, 0, name, held)
    return Job((request,), replace(plan, num_top=num_top, speech=None if speech.is_plain else speech), (prompt.text,))


async def completion_job(service: Service, body: CompletionBody, visit: Visit, terms: Terms) -> Job:
    """Prompts to one engine request each."""
    plan = _plan(service, body, "completion")
    _check_turn(service, body, terms)
    prompts = split_prompts(body.prompt)
    if len(prompts) * (width := width_of(body)) > MAX_CHOICES:
        raise RequestError(
            "too many answers", got=f"{len(prompts)} prompts, n={width}", allowed=f"{MAX_CHOICES} together", param="n"
        )
    params = _sampling(service, body, body.logprobs)
    _enter(service, visit, len(prompts), body, terms)
    must_fit = body.truncate_prompt_tokens is None
    whole = [await encode_prompt(service, prompt, body.add_special_tokens, must_fit) for prompt in prompts]
    encoded = [cut(service, prompt, params, body.max_tokens or COMPLETION_TOKENS) for prompt in whole]
    prompt_only = body.echo and body.max_tokens == 0
    if body.echo and body.logprobs is not None:
        params = replace(params, prompt_logprobs=max(body.logprobs, body.prompt_logprobs or 0))
    content = await form_of_answer(service, body)
    held = await held_to(service, None, content, params, terms.tenant(body.user), body.use_beam_search)
    requests = [_completion(service, plan, body, prompt, params, terms, i, held) for i, prompt in enumerate(encoded)]
    echoes = tuple(_echo(service, prompt, body) for prompt in encoded) if body.echo else None
    plan = replace(plan, num_top=body.logprobs, echoes=echoes, prompt_only=prompt_only)
    return Job(tuple(requests), plan, tuple(prompt.text for prompt in encoded))


def _enter(service: Service, visit: Visit, num: int, body: GenerationBody, terms: Terms) -> None:
    """Ask at the door for `num` requests. Raises `Overloaded`."""
    most = terms.most_inside(service.settings.max_concurrent_per_key)
    visit.ask(num, service.max_inside, terms.tenant(body.user), most)


def _completion(
    service: Service,
    plan: ReplyPlan,
    body: CompletionBody,
    prompt: Prompt,
    params: SamplingParams,
    terms: Terms,
    number: int,
    held: Held,
) -> Request:
    room = _room(service, prompt, "prompt")
    asked = min(COMPLETION_TOKENS, room) if body.max_tokens is None else body.max_tokens
    if body.echo and asked == 0:
        asked = 1  # the engine draws one, which is not told
    whole = _with_max_tokens(params, asked, "max_tokens")
    return _request(service, plan, body, prompt, whole, terms, number, "max_tokens", held)


def _plan(service: Service, body: GenerationBody, kind: Literal["chat", "completion"]) -> ReplyPlan:
    prefix = "chatcmpl" if kind == "chat" else "cmpl"
    return ReplyPlan(
        kind=kind,
        id=f"{prefix}-{service.fresh_id()}",
        created=int(service.wall()),
        model=service.name_of(body.model),
        stream=body.stream,
        usage=stream_usage(body),
        n=body.n,
        token_ids=body.return_token_ids,
        tokens_as_ids=body.return_tokens_as_token_ids,
        prompt_top=body.prompt_logprobs,
        fingerprint=service.fingerprint,
        service_tier=_tier(body),
    )


def _tier(body: GenerationBody) -> Literal["default", "flex"] | UnsetType:
    if body.service_tier is None:
        return UNSET
    return "flex" if body.service_tier == "flex" else "default"


def _sampling(service: Service, body: GenerationBody, logprobs: int | None) -> SamplingParams:
    """The request's values over the model's own over OpenAI's; `max_tokens` comes later, with the prompt's length."""
    check_ids(list(body.logit_bias or ()), service.vocab_size, "logit_bias")
    check_ids(body.stop_token_ids or [], service.vocab_size, "stop_token_ids")
    check_ids(body.allowed_token_ids or [], service.vocab_size, "allowed_token_ids")
    _check_salt(body.cache_salt)
    asked = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
    }
    defaults = {} if body.use_beam_search else service.defaults.as_params()  # they are about drawing
    chosen = defaults | {name: value for name, value in asked.items() if value is not None}
    chosen.pop("max_tokens", None)
    return SamplingParams(
        n=body.n,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        seed=body.seed,
        stop=body.stop,
        stop_token_ids=body.stop_token_ids,
        include_stop_str_in_output=body.include_stop_str_in_output,
        ignore_eos=body.ignore_eos,
        max_tokens=None,
        min_tokens=body.min_tokens,
        logprobs=logprobs,
        prompt_logprobs=body.prompt_logprobs,
        skip_special_tokens=body.skip_special_tokens,
        bad_words=body.bad_words,
        allowed_token_ids=body.allowed_token_ids,
        repetition_detection=repetition(body),
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        spaces_between_special_tokens=body.spaces_between_special_tokens,
        **chosen,
    )


def _with_max_tokens(params: SamplingParams, max_tokens: int, name: str) -> SamplingParams:
    """`max_tokens` set; its error carries the name under which it was asked for."""
    try:
        return replace(params, max_tokens=max_tokens)
    except QuireError as error:
        if error.param != "max_tokens" or name == "max_tokens":
            raise
        raise RequestError(
            error.what.replace("max_tokens", name), got=error.got, allowed=error.allowed, param=name
        ) from None


def _room(service: Service, prompt: Prompt, param: str) -> int:
    """Tokens left for the answer; at least one, or `ContextLengthExceeded`."""
    room = service.plan.max_model_len - len(prompt.ids)
    if room < 1:
        raise ContextLengthExceeded(
            "the prompt does not fit the model's context",
            got=f"{len(prompt.ids)} prompt tokens",
            allowed=f"{service.plan.max_model_len} tokens, prompt and answer together",
            hint="Shorten the prompt.",
            param=param,
        )
    return room


def _request(
    service: Service,
    plan: ReplyPlan,
    body: GenerationBody,
    prompt: Prompt,
    params: SamplingParams,
    terms: Terms,
    number: int,
    max_tokens_name: str,
    held: Held,
) -> Request:
    if len(prompt.ids) + (params.max_tokens or 0) > service.plan.max_model_len:
        raise ContextLengthExceeded(
            "prompt and answer do not fit the model's context",
            got=f"{len(prompt.ids)} prompt tokens and {max_tokens_name}={params.max_tokens}",
            allowed=f"{service.plan.max_model_len} tokens together",
            hint=f"Lower {max_tokens_name} or shorten the prompt.",
            param=max_tokens_name,
        )
    width = width_of(body)
    _check_width(service, width, "n" if width == body.n else "best_of")
    beams = beams_of(body, terms.deadline_s)
    if beams is None:
        params = sampled(params, width)
    seeded = params if params.seed is not None else replace(params, seed=service.seed())
    return Request(
        f"{plan.id}-{number}",
        prompt.ids,
        seeded,
        service.spec.eos_ids,
        terms.salt(body.cache_salt),
        tenant=terms.tenant(body.user),
        weight=terms.weight,
        priority=body.priority,
        flex=body.service_tier == "flex",
        deadline_s=None if number else terms.deadline_s,
        leads=not number,
        constraint=held.constraint,
        bad_sequences=held.bad_sequences,
        beams=beams,
        num_public_tokens=service.public.num_tokens(prompt.ids) if terms.may_share(body.cache_salt) else 0,
    )


def _check_width(service: Service, width: int, param: str) -> None:
    most = min(MAX_N, service.plan.max_num_seqs)
    if width > most:
        raise RequestError(
            f"{param} is larger than the number of samples that run at once",
            got=width,
            allowed=f"1 to {most}",
            param=param,
        )


def _chat_logprobs(body: ChatBody) -> int | None:
    if not 0 <= body.top_logprobs <= MAX_LOGPROBS:
        raise RequestError(
            "top_logprobs is out of range", got=body.top_logprobs, allowed=f"0 to {MAX_LOGPROBS}", param="top_logprobs"
        )
    if body.top_logprobs:
        fields.check_depends(body.logprobs, "top_logprobs", "logprobs=true")
    return body.top_logprobs if body.logprobs else None


def _check_salt(salt: str | None) -> None:
    if salt is not None and not 1 <= len(salt) <= MAX_SALT_CHARACTERS:
        raise RequestError(
            "cache_salt is empty or too long",
            got=f"{len(salt)} characters",
            allowed=f"1 to {MAX_SALT_CHARACTERS}",
            param="cache_salt",
        )


def _check_turn(service: Service, body: GenerationBody, terms: Terms) -> None:
    if body.user is not None and len(body.user) > MAX_USER_CHARACTERS:
        raise RequestError(
            "user is too long", got=f"{len(body.user)} characters", allowed=f"{MAX_USER_CHARACTERS}", param="user"
        )
    if body.priority and service.plan.scheduling_policy == "fcfs":
        raise UnsupportedField(
            "priority means nothing here",
            got=body.priority,
            allowed="0",
            hint="The server was started with --scheduling-policy fcfs.",
            param="priority",
        )
    if body.priority < terms.least_priority:
        raise RequestError(
            "this key may not ask to be served so soon",
            got=body.priority,
            allowed=f"{terms.least_priority} to {MAX_PRIORITY}",
            hint="A lower number is sooner.",
            param="priority",
        )


def _echo(service: Service, prompt: Prompt, body: CompletionBody) -> str:
    """The prompt as it was given, or as its ids read."""
    if prompt.text is not None:
        return prompt.text
    return service.tokenizer.decode(prompt.ids, body.skip_special_tokens)


def all_prompt_ids(requests: Sequence[Request]) -> int:
    """Prompt tokens of a job; a prompt counts once, whatever n."""
    return sum(len(request.prompt) for request in requests)
