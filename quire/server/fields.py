"""Which field names there are, and what becomes of those that we do not implement.

    implemented   a field of the body's model in `schema.py`
    inert         cannot change the output: always accepted, never looked at
    guarded       would change the output: accepted where its value asks for what we do anyway, else refused by name
    unknown       refused with the nearest known name, or ignored with a warning (`--unknown-fields warn`)

null means absent everywhere.

Knows: OpenAI's and vLLM's field names and defaults. Does not know: types of implemented fields, engines.
"""

from __future__ import annotations

import difflib
import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quire.errors import RequestError, UnknownField, UnsupportedField
from quire.limits import MAX_NAME_CHARACTERS
from quire.observe import log

PART = "server"
MAX_WARNINGS = 16  # of one object; what else it holds that nobody knows is not worth a line of the log


@dataclass(frozen=True, slots=True)
class Guard:
    """A field that we lack: the values that ask for nothing, and what to do instead."""

    harmless: tuple[object, ...] = ()
    hint: str | None = None


INERT = frozenset(
    {
        "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
        "prediction", "request_id", "session_id",
    }
)  # fmt: skip

NO_MEDIA = "Only text goes in and out."
TEMPLATES = "Templates come from the model's folder or --chat-template, never from a request."

SHARED: Mapping[str, Guard] = {
    "store": Guard((False,), "Answers are not kept."),
    "guided_decoding_backend": Guard(("auto", "guidance"), "There is one backend."),
    "logits_processors": Guard(([],), "They are for quire.LLM. Use logit_bias, bad_words or allowed_token_ids."),
    "logprob_token_ids": Guard(([],), "Use logprobs, which tell the likeliest tokens."),
    "flat_logprobs": Guard((False,)),
    "detokenize": Guard((True,), "Use return_token_ids, and leave the text."),
    "watermarking": Guard((False,), "Answers are not marked."),
    "truncation_side": Guard(("left",), "truncate_prompt_tokens keeps a prompt's last tokens."),
    "skip_reading_prefix_cache": Guard((False,), "Use a cache_salt of your own."),
    "stream_interval": Guard((1,), "Tokens are sent as they come."),
    "return_token_offsets": Guard((False,), "Use logprobs: completions tell text_offset."),
    "return_prompt_text": Guard((False,), "Use the render route of this one, or echo of /v1/completions."),
    "extra_args": Guard(({},)),
    "routed_experts_prompt_start": Guard((0,)),
    "ec_transfer_params": Guard(({},)),
    "media_io_kwargs": Guard(({},), NO_MEDIA),
    "mm_payload": Guard(("tensors",), NO_MEDIA),
    "return_mm_kwargs": Guard((False,), NO_MEDIA),
    "mm_processor_kwargs": Guard(({},), NO_MEDIA),
    "kv_transfer_params": Guard(({},)),
    "vllm_xargs": Guard(({},)),
    "moderation": Guard((), "Answers are not moderated."),
}
CHAT: Mapping[str, Guard] = {
    **SHARED,
    "best_of": Guard((1,), "Use n, or /v1/completions, which has no tools."),
    "functions": Guard(([],), "Use tools."),
    "function_call": Guard(("none", "auto"), "Use tool_choice."),
    "modalities": Guard((["text"],), NO_MEDIA),
    "audio": Guard((), NO_MEDIA),
    "web_search_options": Guard((), "The server fetches nothing."),
    "verbosity": Guard(("medium",)),
    "chat_template": Guard((), TEMPLATES),
    "documents": Guard(([],), "Put documents into a message."),
    "add_special_tokens": Guard((False,), "The chat template writes the special tokens."),
    "echo": Guard((False,), "Use /v1/completions, which has no tools."),
    "suffix": Guard(("",)),
}
COMPLETIONS: Mapping[str, Guard] = {
    **SHARED,
    "suffix": Guard(("",), "Filling in the middle is not implemented."),
    "prompt_embeds": Guard((), NO_MEDIA),
    "tools": Guard(([],), "Use /v1/chat/completions."),
    "tool_choice": Guard(("none", "auto"), "Use /v1/chat/completions."),
    "thinking_token_budget": Guard((), "Use /v1/chat/completions: only there is reasoning told apart."),
}
TOKENIZE: Mapping[str, Guard] = {
    "tools": Guard(([],), "Tools go with messages."),
    "chat_template": Guard((), TEMPLATES),
    "mm_processor_kwargs": Guard(({},), NO_MEDIA),
}
MESSAGE_INERT = frozenset({"annotations"})
MESSAGE: Mapping[str, Guard] = {
    "refusal": Guard(),
    "audio": Guard((), NO_MEDIA),
    "function_call": Guard((), "Use tool_calls."),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two fields that are refused together, each alone being fine."""

    fields: tuple[str, str]
    why: str


ENDS = "An answer that has a form ends where its form ends."
FORMS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
SEARCH = "use_beam_search"
DRAWING = (
    "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "bad_words",
    "allowed_token_ids", "repetition_detection",
)  # fmt: skip
PAIRS: tuple[Pair, ...] = (
    *[Pair(("min_tokens", form), ENDS) for form in (*FORMS, "tools")],
    *[Pair(("ignore_eos", form), ENDS) for form in (*FORMS, "tools")],
    *[Pair(two, "An answer has one form.") for two in itertools.combinations(FORMS, 2)],
    Pair(("echo", "tools"), "They are of different routes."),
    Pair(("best_of", "tools"), "They are of different routes."),
    *[Pair((name, "stream"), "Which answers are best is known at their end.") for name in ("best_of", SEARCH)],
    Pair((SEARCH, "x-quire-deadline-ms"), "All tokens of a search come at its end."),
    *[Pair((SEARCH, name), "A search takes the model's own log probabilities.") for name in DRAWING],
    *[Pair((SEARCH, name), "A search has no form.") for name in (*FORMS, "tools")],
    Pair((SEARCH, "stop"), "A search looks at tokens."),
)
"""With `tools`, where one has to be called. What depends on values besides (min_tokens over max_tokens, allow-lists
without an end for an answer that has a form) is refused by both names too."""


def implemented(
    values: Mapping[str, object],
    names: Iterable[str],
    guarded: Mapping[str, Guard],
    *,
    inert: frozenset[str] = INERT,
    where: str = "",
    warn: bool = False,
) -> dict[str, object]:
    """The fields of `values` that are in `names` and not null; everything else is accepted or refused as above.

    `where` comes before a field's name in errors (`messages[3].`). Raises `UnsupportedField` or `UnknownField`.
    """
    known = frozenset(names)
    kept: dict[str, object] = {}
    num_unknown = 0
    for name, value in values.items():
        if value is None or name in inert:
            continue
        if name in known:
            kept[name] = value
        elif name in guarded:
            _check_guarded(where + name, value, guarded[name])
        elif num_unknown < MAX_WARNINGS:
            num_unknown += 1
            _unknown(name, where, known | guarded.keys() | inert, warn)
    return kept


def _check_guarded(name: str, value: object, guard: Guard) -> None:
    if any(_same(value, harmless) for harmless in guard.harmless):
        return
    raise UnsupportedField(
        f"{name} is not implemented with this value",
        got=value,
        allowed=" or ".join(["absent", *(repr(harmless) for harmless in guard.harmless)]),
        hint=guard.hint,
        param=name,
    )


def _unknown(name: str, where: str, known: frozenset[str], warn: bool) -> None:
    short = name if len(name) <= MAX_NAME_CHARACTERS else name[:MAX_NAME_CHARACTERS] + "…"
    if warn:
        log.say(log.get(PART), logging.WARNING, "unknown request field ignored", field=where + short)
        return
    nearest = difflib.get_close_matches(short, sorted(known), 1)
    raise UnknownField(
        f"there is no field {where}{short}",
        hint=f"Did you mean {nearest[0]}?" if nearest else None,
        param=where + short,
    )


def check_depends(condition: bool, name: str, needs: str) -> None:
    """Refuse a field that means nothing without another."""
    if not condition:
        raise RequestError(f"{name} means nothing without {needs}", param=name)


def _same(value: object, harmless: object) -> bool:
    """Equality as JSON sees it: true is not 1."""
    return isinstance(value, bool) == isinstance(harmless, bool) and value == harmless
