"""Which logits draws need exact beyond a rough head's own best hundreds (decision 031).

    a form, bad words, an allow-list    the best of what they leave
    a bias                              the tokens that it lifts
    what may turn the whole row         all: logits processors, penalties that reward, more biases than MANY

Knows: draws. Does not know: how a logit becomes exact.

Legend: R rows, V vocabulary, W words of 32 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from quire.ops.refine import ALL, ALLOWED, NAMED, Wanted, is_exact, wanted
from quire.request import SamplingParams
from quire.sampling.record import Record
from quire.step import WorkResult

MANY = 64  # biases and bans of one row; a head's best are hundreds, and some of them must be left

Refine = Callable[[Any, Wanted, Any], None]
"""(logits_RV, wanted, mask_RW or None): `ops.refine.refine` with the rows that the logits were made of."""


def wanted_by(records: Sequence[Record]) -> Wanted | None:
    """What rows drawn so want exact; None where a rough head's best are enough."""
    how = [_how(record) for record in records]
    names = [_lifted(record) if way != ALL else [] for record, way in zip(records, how, strict=True)]
    return wanted(names, how) if any(how) or any(names) else None


def refine_for(refine: Refine, logits_RV: Any, asked: Wanted, mask_RW: Any | None) -> None:
    """Make what is `asked` exact; a form that nobody keeps a mask for has its draw refused later on."""
    if mask_RW is None and (asked.how_R == ALLOWED).any():
        asked = replace(asked, how_R=np.where(asked.how_R == ALLOWED, NAMED, asked.how_R).astype(np.uint8))
    refine(logits_RV, asked, mask_RW)


def told_roughly(logits_RV: np.ndarray, results: Sequence[WorkResult]) -> list[int]:
    """Rows whose log probabilities are told although a drawn token's logit is rough: one from far below the best."""
    return [
        row
        for row, result in enumerate(results)
        if result.logprobs and not is_exact(logits_RV[row, list(result.tokens)]).all()
    ]


def _how(record: Record) -> int:
    params = record.draw.params
    if params.logits_processors or len(record.bias) > MANY or _rewards(params):
        return ALL
    return ALLOWED if record.restriction is not None or record.draw.constraint is not None else NAMED


def _lifted(record: Record) -> list[int]:
    """Tokens with a bias that is no ban."""
    return [token for token, value in record.bias if isfinite(value)]


def _rewards(params: SamplingParams) -> bool:
    """Whether a token becomes likelier by having been there."""
    return params.repetition_penalty < 1.0 or params.presence_penalty < 0.0 or params.frequency_penalty < 0.0
