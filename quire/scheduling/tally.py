"""Knows: what one step did, as counts. Does not know: what they are shown as."""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.step import FAULTS


@dataclass(slots=True)
class Tally:
    """Counts of the step under way.

    `num_prompt_tokens` are rows computed below the prompt's end, whether for the first time or again;
    `num_cached_tokens` are rows that prefix hits saved; `num_finished` counts samples. Wasted are rows computed again
    because their sequence had been put back (`num_repeated_tokens`; in the flex lane `num_yielded_tokens`), and rows of
    samples that nobody waited for to the end (`num_aborted_tokens`) or that went wrong (`num_failed_tokens`). `faults`
    are the codes of what went wrong that no request is to blame for, one a sequence; `num_repeating` answers have
    begun to say the same again and again.
    """

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    num_preempted: int = 0
    num_finished: int = 0
    num_repeated_tokens: int = 0
    num_yielded_tokens: int = 0
    num_aborted_tokens: int = 0
    num_failed_tokens: int = 0
    num_repeating: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, error: str) -> None:
        """A sequence ends with `error`."""
        kind = FAULTS.get(error)
        if kind is not None and kind.default_code is not None:
            self.faults.append(kind.default_code)
