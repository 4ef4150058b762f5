"""What observers are told: numbers and ids only.

Knows: what was counted. Does not know: who listens, or how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheUse:
    """The KV pool now, in blocks; used + cached + free = total.

    `num_wasted_slots` counts token slots of used blocks that hold no token: paging's only waste.
    """

    num_blocks: int = 0
    num_used: int = 0
    num_cached: int = 0
    num_free: int = 0
    block_size: int = 16
    num_wasted_slots: int = 0

    @property
    def waste_share(self) -> float:
        """Wasted share of the slots in use, 0 where none is in use."""
        slots = self.num_used * self.block_size
        return self.num_wasted_slots / slots if slots else 0.0


@dataclass(frozen=True, slots=True)
class StepStats:
    """One step as the engine saw it. Token counts are of this step; running and waiting are requests after it.

    `predicted_s` is what the step-time model expected of `seconds`, None before it has seen any step. What was
    computed in vain: tokens repeated after a preemption (`num_yielded_tokens`: by flex requests that made way), and
    those of samples that were aborted, that failed, or whose deadline passed. Flex requests are counted among all that
    run and wait too. `first_tokens` are the predicted and the actual seconds to each first token of the step.
    `faults` are codes of what went wrong without any request's doing, one for each sequence that ended so;
    `num_repeating` answers began to repeat one pattern without end.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    num_preempted: int = 0
    num_finished: int = 0
    seconds: float = 0.0
    cache: CacheUse = CacheUse()
    predicted_s: float | None = None
    num_repeated_tokens: int = 0
    num_aborted_tokens: int = 0
    num_failed_tokens: int = 0
    num_yielded_tokens: int = 0
    num_flex_running: int = 0
    num_flex_waiting: int = 0
    num_expired_tokens: int = 0
    first_tokens: tuple[tuple[float, float], ...] = ()
    faults: tuple[str, ...] = ()
    num_repeating: int = 0


@dataclass(frozen=True, slots=True)
class RequestStats:
    """One request from the moment it was read to its end; times in seconds, `queue_to_first_token_s` None if no token
    came. `refused` is the cause if it was refused or dropped for want of room or time."""

    request_id: str
    route: str
    status: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    queue_to_first_token_s: float | None
    total_s: float
    finish: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """An engine has looked at itself, all of `check`: ok, differs, or begun at its start.

    It does so every `idle_s` seconds while nobody waits for it and every `busy_s` under load. `ailment` says what stays
    wrong however often it is looked at; empty where nothing does.
    """

    check: str
    outcome: str
    idle_s: float
    busy_s: float
    ailment: str = ""


@dataclass(frozen=True, slots=True)
class EngineLoss:
    """An engine process was lost, and what came of it. `cause`: exited, killed (by a signal from outside) or stalled.

    `seconds` are from the loss until another one had taken over every request, `num_replayed` of which it went on with;
    None while none has. `num_suspects` requests were in the step that it died in; `culprit` is the one that was ended.
    `is_final`: no other one is started for a while, and all requests were ended. `remedy` is for the operator alone: it
    may name files.
    """

    cause: str
    how: str
    num_suspects: int = 0
    num_replayed: int = 0
    seconds: float | None = None
    culprit: str | None = None
    is_final: bool = False
    remedy: str = ""
