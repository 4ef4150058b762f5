"""How a beam search is asked for: how many sequences go on side by side, and which of those that ended are best.

Knows: its numbers, and which other parameters it takes. Does not know: candidates (`scheduling/beams.py` chooses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from quire.errors import RequestError, UnsupportedField
from quire.limits import MAX_WIDTH
from quire.sampling_params import SamplingParams, check_integer, check_number

MAX_LENGTH_PENALTY = 100.0
TAKEN = frozenset(
    {
        *("n", "seed", "max_tokens", "min_tokens", "ignore_eos", "stop_token_ids", "logprobs", "prompt_logprobs"),
        *("skip_special_tokens", "include_stop_str_in_output", "truncate_prompt_tokens"),
        "spaces_between_special_tokens",
    }
)
HARMLESS: dict[str, tuple[object, ...]] = {"temperature": (0.0, 1.0), "top_k": (0, -1)}


@dataclass(frozen=True, slots=True)
class Beams:
    """A search for the likeliest sequences, `width` of them side by side; terms and rules are transformers'.

    A sequence that ended after t tokens, its end included, scores (sum of its log probabilities) / t**length_penalty.
    `early_stopping`: True ends the search with `width` ended sequences; False when the best running one, scored at its
    length, is no better than the worst of them; "never" when it cannot become better by any length up to max_tokens.
    """

    width: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        check_integer("n", self.width, 1, MAX_WIDTH)
        check_number("length_penalty", self.length_penalty, -MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY)
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise RequestError(
                "early_stopping is none of its values",
                got=self.early_stopping,
                allowed='true, false or "never"',
                param="early_stopping",
            )

    def score(self, logprob: float, num_tokens: int) -> float:
        """Of a sequence of `num_tokens` whose log probabilities add up to `logprob`."""
        try:
            scale = float(num_tokens) ** self.length_penalty
        except OverflowError:
            scale = math.inf
        return logprob / scale if scale else -math.inf


@dataclass(frozen=True, slots=True)
class BeamSearchParams:
    """`LLM.beam_search`'s parameters, under vLLM's names; `early_stopping`, `min_tokens` and `stop_token_ids` are ours.

    With `include_stop_str_in_output` the token that ended a sequence stays in its `tokens` and `text`.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    early_stopping: bool | Literal["never"] = False
    min_tokens: int = 0
    stop_token_ids: Sequence[int] | None = None


def check_searched(params: SamplingParams) -> None:
    """Refuse by name what of the `SamplingParams` a beam search would have to ignore: it draws nothing, and it takes
    the model's own log probabilities."""
    for each in fields(params):
        value = getattr(params, each.name)
        if each.name in TAKEN or value == each.default or (not value and not each.default):
            continue
        if value not in HARMLESS.get(each.name, ()):
            raise UnsupportedField(
                f"beam search takes no {each.name}",
                got=value,
                allowed=", ".join(map(str, HARMLESS.get(each.name, (each.default,)))),
                hint="It looks for the sequences that the model itself finds likeliest.",
                param=each.name,
            )
