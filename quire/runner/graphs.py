"""Decode steps of a torch device without launches from Python: recorded when a size is seen again, then replayed.

    works --one copy--> inbox (stays where it is) --replay--> logits (stay where they are) --> draw

A shape is a number of rows, padded to the next of `LADDER`, and a width of block tables, padded to a power of two. What
differs from step to step (ids, positions, lengths, blocks) lies in the shape's inbox and is read when the kernels run.
Rows beyond the step's own are its last one again: they compute the same, write the same to the same slot, and nobody
reads them. A shape's first `EAGER_USES` steps are launched one kernel at a time, which compiles what must be compiled;
the recording is made after the last of them, so first tokens wait for none, and a shape that comes once costs none.

Where the device plans attention on the host, a shape has a plan of its own that is made anew before every use; what was
recorded reads it where it lies.

Recordings point into the arena, the cache and their inboxes. They are dropped when a buffer of the arena has grown; at
most `MOST_SHAPES` are kept, those used last. Where recording fails it is given up for good, `problem` says why, and
steps are launched as before.

Knows: the model, inputs of steps of single tokens. Does not know: CUDA, who is computed, how a token is chosen.

Legend: T rows of a step = S sequences, B blocks a table row.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.runner.inputs import Machine

LADDER = (1, 2, 4, *range(8, 64, 8), *range(64, 257, 16))
LEAST_WIDTH = 64
EAGER_USES = 2
MOST_SHAPES = 48


@dataclass(frozen=True, slots=True)
class Rows:
    """A step of one token a sequence, on the host, int32. `numbers_T` are ids, or the rows of an earlier draw that hold
    them. `tables_SB` has as many columns as the longest needs."""

    starts_T: np.ndarray
    slots_T: np.ndarray
    tables_SB: np.ndarray
    numbers_T: np.ndarray


@dataclass(slots=True)
class Shape:
    """Inputs at fixed addresses, and what is computed of them."""

    inbox: Any
    forward: Forward
    ids_T: Any
    rows_R: Any
    flaws_T1: Any
    logits_RV: Any = None
    recording: Any = None
    num_uses: int = 0


class Graphs:
    """All shapes of one runner. `num_recorded` and `num_replayed` count."""

    def __init__(self, model: Model, machine: Machine) -> None:
        self._model, self._machine = model, machine
        self._device = cast(Any, machine.device)
        self._recorder = self._device.recorder()
        self._shapes: OrderedDict[tuple[int, int], Shape] = OrderedDict()
        self._num_growths = machine.arena.num_growths
        self.num_recorded = self.num_replayed = 0
        self.problem = "" if self._recorder is not None else "attention by plain torch cannot be recorded"

    @property
    def is_on(self) -> bool:
        """Whether steps are, or will be, replayed."""
        return self._recorder is not None

    def run(self, rows: Rows, drawn_D: Any | None) -> tuple[Any, Any]:
        """(logits, flaws_T1) of the step's own rows, ordered on the device: good until the next step is ordered.

        `drawn_D` (int32, on the device) holds the ids that `rows.numbers_T` are places of; None: they are the ids.
        """
        shape, num_rows = self._shape_of(rows), len(rows.starts_T)
        numbers_T = shape.inbox.tensors[-1]
        if drawn_D is None:
            shape.ids_T.copy_(numbers_T)
        else:  # a row that failed has drawn -1; whoever asked hears of it before this step counts
            shape.ids_T.copy_(drawn_D[numbers_T].clamp(min=0))
        if shape.recording is not None:
            shape.recording.replay()
            self.num_replayed += 1
        else:
            self._compute(shape)
            shape.num_uses += 1
            if shape.num_uses >= EAGER_USES:
                self._record(shape)
        return shape.logits_RV[:num_rows], shape.flaws_T1[: num_rows + 1]

    def _shape_of(self, rows: Rows) -> Shape:
        """The shape for these rows, its inbox filled."""
        if self._num_growths != self._machine.arena.num_growths:
            self._drop_all()
        num_rows, width = padded(len(rows.starts_T), rows.tables_SB.shape[1], self._machine.head_rows)
        shape = self._shapes.get((num_rows, width))
        if shape is None:
            shape = self._shapes[num_rows, width] = self._make(num_rows, width)
            if len(self._shapes) > MOST_SHAPES:
                self._device.synchronize()
                self._shapes.popitem(last=False)
        self._shapes.move_to_end((num_rows, width))
        arrays = filled(rows, num_rows, width)
        shape.inbox.fill(arrays)
        planned, (_, _, ends_S1, lens_S, tables_SB, *_) = shape.forward.planned, arrays
        if planned is not None and not self._device.replan_attention(planned, ends_S1, lens_S, tables_SB):
            self._drop_all()  # the device plans nothing any more: what was recorded with plans is of no use
            return self._shape_of(rows)
        return shape

    def _make(self, num_rows: int, width: int) -> Shape:
        sizes = [(num_rows,), (num_rows,), (num_rows + 1,), (num_rows,), (num_rows, width), (num_rows + 1,)]
        inbox = self._device.inbox([*sizes, (num_rows,), (num_rows,)])
        positions, slots, ends, lens, tables, flaws, ids, _ = inbox.tensors
        forward = Forward(
            device=self._device,
            arena=self._machine.arena,
            ids_T=ids,
            positions_T=positions,
            slots_T=slots,
            query_starts_S1=ends,
            seq_lens_S=lens,
            block_tables_SB=tables,
            kv=self._machine.kv,
            flaws_T1=flaws,
            planned=self._device.recorded_attention(num_rows),
        )
        return Shape(inbox, forward, ids, ends[:num_rows], flaws)

    def _compute(self, shape: Shape) -> None:
        hidden_TH = self._model.hidden(shape.forward)
        shape.logits_RV = self._model.logits(shape.forward, hidden_TH, shape.rows_R)

    def _record(self, shape: Shape) -> None:
        if self._recorder is None:
            return
        try:
            shape.recording = self._recorder.record(lambda: self._compute(shape))
            self.num_recorded += 1
        except self._device.recording_failures as problem:
            self.problem = f"{type(problem).__name__}: {problem}"
            self._recorder = None

    def _drop_all(self) -> None:
        self._device.synchronize()
        self._shapes.clear()
        self._num_growths = self._machine.arena.num_growths


def padded(num_rows: int, width: int, most_rows: int) -> tuple[int, int]:
    """The shape that a step of so many rows and columns of tables runs in; never more than `most_rows` rows."""
    rung = next((rung for rung in LADDER if rung >= num_rows), num_rows)
    return max(min(rung, most_rows), num_rows), max(LEAST_WIDTH, 1 << (width - 1).bit_length())


def filled(rows: Rows, num_rows: int, width: int) -> list[np.ndarray]:
    """What goes into an inbox: the step, its last row again and again, and tables filled up with block 0."""
    own = len(rows.starts_T)
    more = num_rows - own
    starts_T, slots_T, numbers_T = (
        np.pad(each, (0, more), "edge") for each in (rows.starts_T, rows.slots_T, rows.numbers_T)
    )
    tables_SB = np.zeros((num_rows, width), np.int32)
    tables_SB[:own, : rows.tables_SB.shape[1]] = rows.tables_SB
    tables_SB[own:] = tables_SB[own - 1]
    ends_S1, flaws_T1 = np.arange(num_rows + 1, dtype=np.int32), np.zeros(num_rows + 1, np.int32)
    return [starts_T, slots_T, ends_S1, starts_T + 1, tables_SB, flaws_T1, np.zeros(num_rows, np.int32), numbers_T]
