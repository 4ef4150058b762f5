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
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quire.errors import RequestError, UnknownField, UnsupportedField
from quire.observe import log

PART = "server"
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Guard:
    """A field that we lack: the values that ask for nothing, and what to do instead."""

    harmless: tuple[object, ...] = ()
    hint: str | None = None


INERT = frozenset(
    {
        "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
        "prediction", "request_id",
    }
)  # fmt: skip

NO_MEDIA = "Only text goes in and out."
TEMPLATES = "Templates come from the model's folder or --chat-template, never from a request."

SHARED: Mapping[str, Guard] = {
    "store": Guard((False,), "Answers are not kept."),
    "guided_decoding_backend": Guard(("auto", "guidance"), "There is one backend."),
    "logits_processors": Guard(([],), "Use logit_bias."),
    "bad_words": Guard(([],), "Use logit_bias."),
    "allowed_token_ids": Guard((), "Use logit_bias."),
    "truncate_prompt_tokens": Guard((), "Shorten the prompt before it is sent."),
    "spaces_between_special_tokens": Guard((True,)),
    "mm_processor_kwargs": Guard(({},), NO_MEDIA),
    "kv_transfer_params": Guard(({},)),
    "vllm_xargs": Guard(({},)),
    "moderation": Guard((), "Answers are not moderated."),
}
CHAT: Mapping[str, Guard] = {
    **SHARED,
    "best_of": Guard((1,), "Use n, or /v1/completions."),
    "functions": Guard(([],), "Use tools."),
    "function_call": Guard(("none", "auto"), "Use tool_choice."),
    "modalities": Guard((["text"],), NO_MEDIA),
    "audio": Guard((), NO_MEDIA),
    "web_search_options": Guard((), "The server fetches nothing."),
    "verbosity": Guard(("medium",)),
    "chat_template": Guard((), TEMPLATES),
    "documents": Guard(([],), "Put documents into a message."),
    "add_special_tokens": Guard((False,), "The chat template writes the special tokens."),
    "echo": Guard((False,), "Use /v1/completions."),
    "suffix": Guard(("",)),
}
COMPLETIONS: Mapping[str, Guard] = {
    **SHARED,
    "suffix": Guard(("",), "Filling in the middle is not implemented."),
    "prompt_embeds": Guard((), NO_MEDIA),
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
    for name, value in values.items():
        if value is None or name in inert:
            continue
        if name in known:
            kept[name] = value
        elif name in guarded:
            _check_guarded(where + name, value, guarded[name])
        else:
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
