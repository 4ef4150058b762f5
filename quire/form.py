"""What form an answer must have, as it was asked for: a JSON schema, a pattern, a list of texts or a grammar.

Knows: that exactly one form is asked for, and its type. Does not know: grammars (`structured/source.py` makes one of
it), tokens, requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.errors import RequestError

FORMS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """Exactly one of the first six; names and meanings are vLLM's.

    `json`: a JSON schema, as an object or as its text. `json_object`: any JSON object. `regex`: the whole answer
    matches (Rust's syntax, no look-around). `choice`: one of these texts. `grammar`: EBNF with `::=` (llama.cpp's
    GBNF) or Lark as llguidance reads it. `structural_tag`: free text, in which every `begin` is followed by JSON of
    its schema and `end`: `{"triggers": [...], "structures": [{"begin": ..., "schema": ..., "end": ...}]}`.

    White space in JSON is bounded: `whitespace_pattern` replaces the bound, `disable_any_whitespace` allows none.
    """

    json: str | Mapping[str, Any] | bool | None = None
    json_object: bool = False
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    structural_tag: str | Mapping[str, Any] | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False

    def __post_init__(self) -> None:
        if len(self._given) != 1:
            raise RequestError(
                "structured outputs take exactly one form",
                got=", ".join(self._given) or "none",
                allowed=", ".join(FORMS),
                param="structured_outputs",
            )

    @property
    def kind(self) -> str:
        """Which form is asked for: one of `FORMS`."""
        return self._given[0]

    @property
    def _given(self) -> list[str]:
        absent = {name: False if name == "json_object" else None for name in FORMS}
        return [name for name in FORMS if getattr(self, name) is not absent[name]]
