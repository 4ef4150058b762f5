"""Reading the small text and JSON files of a model folder, and the special tokens they name.

Knows: which files name special tokens, and which file wins. Does not know: ids, templates, weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.errors import BrokenCheckpoint

RULES = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, slots=True)
class AddedTokenSpec:
    """A token that `tokenizer_config.json` adds to the vocabulary, with its matching rules."""

    content: str
    special: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What a folder says about special tokens.

    named: `bos_token`, `eos_token`, `unk_token`, ... to the token's text (also what chat templates see).
    marked: the named tokens and the further ones that are to count as special. added: tokens to add, in id order.
    What encoding puts around a text is tokenizer.json's alone: `add_bos_token` and its like are of older formats.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    marked: tuple[AddedTokenSpec, ...] = ()
    added: tuple[AddedTokenSpec, ...] = ()
    clean_up_spaces: bool = False


def read_text(folder: Path, name: str) -> str | None:
    """The file's text, or None when there is no such file; BrokenCheckpoint when it cannot be read as UTF-8."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenCheckpoint(f"{path} cannot be read", got=type(error).__name__, allowed="UTF-8 text") from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The file's JSON object, {} when there is no such file; BrokenCheckpoint when it is not a JSON object."""
    text = read_text(folder, name)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{folder / name} is not valid JSON", got=str(error)) from error
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{folder / name} is not a JSON object", got=type(value).__name__)
    return value


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Special tokens of `tokenizer_config.json`; `special_tokens_map.json` wins where the former lists no added tokens.

    That order is the one transformers follows, so the same folder means the same tokens here.
    """
    config = read_json(folder, "tokenizer_config.json")
    merged = config if "added_tokens_decoder" in config else {**config, **read_json(folder, "special_tokens_map.json")}
    named, extra = _named(merged), _extra(merged)
    return SpecialTokens(
        named={name: spec.content for name, spec in named.items()},
        marked=(*named.values(), *extra),
        added=_added(config.get("added_tokens_decoder") or {}, folder),
        clean_up_spaces=config.get("clean_up_tokenization_spaces") is True,
    )


def _spec(value: Any) -> AddedTokenSpec | None:
    """A token is written as a string or as an object with `content`; None for anything else."""
    if isinstance(value, str) and value:
        return AddedTokenSpec(value)
    if isinstance(value, Mapping) and isinstance(value.get("content"), str) and value["content"]:
        return AddedTokenSpec(value["content"], **{rule: value.get(rule) is True for rule in RULES})
    return None


def _named(config: Mapping[str, Any]) -> dict[str, AddedTokenSpec]:
    extra = config.get("extra_special_tokens")
    pairs = {**config, **(extra if isinstance(extra, Mapping) else {})}
    named = {key: _spec(value) for key, value in pairs.items() if key.endswith("_token")}
    return {key: spec for key, spec in named.items() if spec is not None}


def _extra(config: Mapping[str, Any]) -> tuple[AddedTokenSpec, ...]:
    lists = [config.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
    specs = [_spec(value) for values in lists if isinstance(values, list) for value in values]
    return tuple(spec for spec in specs if spec is not None)


def _added(decoder: Any, folder: Path) -> tuple[AddedTokenSpec, ...]:
    rules = ("special", *RULES)
    try:
        entries = sorted((int(key), entry) for key, entry in decoder.items())
        return tuple(
            AddedTokenSpec(content=str(entry["content"]), **{rule: bool(entry.get(rule, False)) for rule in rules})
            for _, entry in entries
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = folder / "tokenizer_config.json"
        raise BrokenCheckpoint(f"added_tokens_decoder of {where} is malformed", got=type(error).__name__) from error
