"""Structural tags as a grammar: free text, in which what begins like a tag goes on as JSON of the tag's schema.

Knows: vLLM's words for them. Does not know: tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quire.errors import RequestError
from quire.limits import MAX_TAGS
from quire.structured.notation import json_of, literal


@dataclass(frozen=True, slots=True)
class Tag:
    """`begin` starts with `trigger`; JSON of `schema` and `end` follow it."""

    trigger: str
    begin: str
    schema: object
    end: str


def tags_grammar(value: object, options: Mapping[str, object], specials: Collection[str], param: str) -> str:
    """Lark for `{"triggers": [...], "structures": [{"begin", "schema", "end"}, ...]}`.

    A trigger or end that is a special token is named, all others are text. Raises `RequestError`.
    """
    tags = _tags(value, param)
    rules = [rule for number, tag in enumerate(tags) for rule in _rules(f"tag_{number}", tag, options, specials, param)]
    names = " | ".join(f"tag_{number}" for number in range(len(tags)))
    return "\n".join(["%llguidance {}", f"start: ({names})* rest", "rest: TEXT", r"TEXT: /(.|\n)*/", *rules])


def _rules(name: str, tag: Tag, options: Mapping[str, object], specials: Collection[str], param: str) -> list[str]:
    rest = tag.begin[len(tag.trigger) :]
    end = tag.end if tag.end in specials else literal(tag.end)
    body = " ".join(
        [*([literal(rest)] if rest else []), json_of(tag.schema, options, param), *([end] if tag.end else [])]
    )
    if tag.trigger in specials:
        return [f"{name}: TEXT {tag.trigger} {body}"]
    return [f"{name}_open[lazy]: TEXT {literal(tag.trigger)}", f"{name}: {name}_open {body}"]


def _tags(value: object, param: str) -> list[Tag]:
    structures = value.get("structures") if isinstance(value, dict) else None
    triggers = value.get("triggers") if isinstance(value, dict) else None
    for name, listed in (("structures", structures), ("triggers", triggers)):
        if isinstance(listed, list) and len(listed) > MAX_TAGS:
            raise RequestError(f"too many {name}", got=len(listed), allowed=f"at most {MAX_TAGS}", param=param)
    found = [_tag(each, triggers) for each in structures] if isinstance(structures, list) else []
    known = [tag for tag in found if tag is not None]
    if not 0 < len(known) == len(found):
        allowed = (
            '{"triggers": [text, ...], "structures": [{"begin": a trigger and more, "schema": ..., "end": text}, ...]}'
        )
        raise RequestError("this is no structural tag", got=value, allowed=allowed, param=param)
    return known


def _tag(value: object, triggers: object) -> Tag | None:
    """None for what is none, or begins with no trigger."""
    if not isinstance(value, dict) or not isinstance(triggers, list):
        return None
    begin, end = value.get("begin"), value.get("end", "")
    if not isinstance(begin, str) or not isinstance(end, str):
        return None
    starts = [text for text in triggers if isinstance(text, str) and text and begin.startswith(text)]
    return Tag(starts[0], begin, value.get("schema", True), end) if starts else None
