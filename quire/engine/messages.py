"""What travels between an engine and those who ask it: nouns of the pipe.

Knows: the words (`Request`, `Delta`, `StepStats`, `Plan`). Does not know: how they are encoded or carried.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.events import Examined, StepStats
from quire.plan import Contract, Plan
from quire.receipt import NO_RECEIPT, Receipt
from quire.request import Constraint, Request
from quire.step import Delta
from quire.structured.order import Masked, MaskOrder

UNBOUND = Contract()


@dataclass(frozen=True, slots=True)
class Start:
    """First message to a new engine process: what to load and how, and what to promise to those who come."""

    plan: Plan
    folder: str
    contract: Contract = UNBOUND


@dataclass(frozen=True, slots=True)
class Submit:
    """A request to be served."""

    request: Request


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody waits for this request any more, or for its sample `index` alone: he has left, or was `served` in full."""

    request_id: str
    index: int | None = None
    served: bool = False


@dataclass(frozen=True, slots=True)
class Prepare:
    """A grammar that a request is going to need; it is compiled while others are served. `id` comes back.

    `is_known`: it was compiled before, by a process that was lost since; no trial of it is needed.
    """

    id: str
    constraint: Constraint
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Loading:
    """The engine is reading weights."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine answers requests from now on. `isa` and `kernels` were chosen at run time; `notes` are for people; the
    `receipt` says what the engine's answers depend on."""

    isa: str
    kernels: tuple[tuple[str, str, str], ...]
    load_s: float
    notes: tuple[str, ...] = ()
    receipt: Receipt = NO_RECEIPT


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not start, or has died; it says nothing after this. `kind` is an error class of ours."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was not taken in, or that was dropped before its turn; `kind` is an error class of ours.

    Where too much is waiting: seconds until it is worth coming back, and to a first token as things were.
    """

    request_id: str
    kind: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    estimate_s: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """The grammar is ready, or `kind`, an error class of ours, and `message` say why it never will be."""

    id: str
    kind: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class KeepGrammars:
    """First message to a new grammar process: the model's folder and its ids."""

    folder: str
    vocab_size: int
    eos_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step brought."""

    deltas: tuple[Delta, ...]
    stats: StepStats


ToEngine = Start | Submit | Abort | Prepare
FromEngine = Loading | Ready | Failed | Refused | StepReport | Prepared | Examined
ToGrammars = KeepGrammars | Prepare | MaskOrder
FromGrammars = Prepared | Masked
