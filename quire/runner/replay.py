"""Decode steps without Python between the kernels: a step of a size seen before is filled in and replayed.

Knows: which steps are alike, where their inputs lie, and when a recording is stale. Does not know: what the model does.

    works --fill--> inputs (stay where they are) --replay--> logits (stay where they are)

A step is replayed if every work is one token that draws. Its size is then its number of rows alone: the inputs of all
sizes are beginnings of the same arrays, block tables have one width for all, and what differs from step to step (ids,
positions, lengths, blocks) is read by the kernels when they run. So there are at most `HEAD_ROWS` programs. All of
them are dropped when an array that they point into is replaced: block tables that became too narrow, or a buffer of
the arena that grew. (They would still be right, each in its own memory; but that memory is counted nowhere.)

Legend: S sequences, T = S tokens, B blocks a table row, R = S rows of logits, V vocabulary.
"""

from __future__ import annotations

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.ops.program import Program
from quire.plan import HEAD_ROWS
from quire.runner.inputs import Machine
from quire.step import Step, Work

FIRST_TABLE_WIDTH = 64


class DecodeInputs:
    """The arrays of steps of one token a sequence; row s belongs to the s-th work."""

    def __init__(self, num_rows: int, table_width: int, block_size: int) -> None:
        self.table_width = table_width
        self._block_size = block_size
        self._ids_T, self._positions_T, self._slots_T, self._seq_lens_S = np.zeros((4, num_rows), np.int32)
        self._tables_SB = np.zeros((num_rows, table_width), np.int32)
        self._numbers_S1 = np.arange(num_rows + 1, dtype=np.int32)
        self.flaws_T1 = np.zeros(num_rows + 1, np.int32)
        self._written: list[list[int]] = [[]] * num_rows  # what stands in each row of the tables
        arrays = (self._ids_T, self._positions_T, self._slots_T, self._seq_lens_S)
        self._views = tuple(array.data for array in arrays)  # memoryviews: a store costs 40 ns, to an array 90

    def fill(self, works: tuple[Work, ...]) -> None:
        """Write the inputs of these works, each of one token, with no more blocks than the tables are wide."""
        ids, positions, slots, seq_lens = self._views
        written, size = self._written, self._block_size
        for row, work in enumerate(works):
            position, blocks = work.start, work.block_table
            ids[row] = work.tokens[0]
            positions[row] = position
            slots[row] = blocks[position // size] * size + position % size
            seq_lens[row] = position + 1
            if written[row] != blocks:
                self._tables_SB[row, : len(blocks)] = blocks
                written[row] = list(blocks)

    def forward(self, num_rows: int, machine: Machine) -> Forward:
        """The step of the first `num_rows` rows, as the model takes it."""
        return Forward(
            device=machine.device,
            arena=machine.arena,
            ids_T=self._ids_T[:num_rows],
            positions_T=self._positions_T[:num_rows],
            slots_T=self._slots_T[:num_rows],
            query_starts_S1=self._numbers_S1[: num_rows + 1],
            seq_lens_S=self._seq_lens_S[:num_rows],
            block_tables_SB=self._tables_SB[:num_rows],
            kv=machine.kv,
            rows_R=self._numbers_S1[:num_rows],
            flaws_T1=self.flaws_T1[: num_rows + 1],
        )


class Replay:
    """Logits of decode steps, from recordings of the model on one machine."""

    def __init__(self, model: Model, machine: Machine) -> None:
        self._model = model
        self._machine = machine
        self._inputs = DecodeInputs(HEAD_ROWS, FIRST_TABLE_WIDTH, machine.block_size)
        self._recorded: dict[int, tuple[Program, np.ndarray]] = {}
        self._num_growths = machine.arena.num_growths

    def logits(self, step: Step) -> np.ndarray | None:
        """logits_RV of a step whose works are all one token that draws, row by work; None for any other step.

        The array is valid until the next step. The bits are those of the same step run without a recording.
        """
        works = step.works
        if not _is_decode(works) or self._machine.arena.poisons:
            return None
        self._fit(max([len(work.block_table) for work in works]))
        self._inputs.fill(works)
        if self.flaws_T1[0]:  # of a step that raised before anybody looked
            self.flaws_T1[:] = 0
        found = self._recorded.get(len(works))
        if found is None:
            return self._record(len(works))
        program, logits_RV = found
        program.replay()
        return logits_RV

    @property
    def flaws_T1(self) -> np.ndarray:
        """Of the last step whose logits were asked for, as in `Forward`; whoever looks clears them."""
        return self._inputs.flaws_T1

    def _record(self, num_rows: int) -> np.ndarray:
        """Run the step once as the model does it, and keep what it launched."""
        program = Program(self._machine.device)
        with program.recording():
            logits_RV = self._model.forward(self._inputs.forward(num_rows, self._machine))
        self._drop_detached()
        self._recorded[num_rows] = program, logits_RV
        return logits_RV

    def _fit(self, table_width: int) -> None:
        """Wider tables where these are too narrow; programs only of memory in use."""
        if table_width > self._inputs.table_width:
            width = 1 << (table_width - 1).bit_length()
            self._inputs = DecodeInputs(HEAD_ROWS, width, self._machine.block_size)
            self._recorded.clear()
        self._drop_detached()

    def _drop_detached(self) -> None:
        if self._num_growths != self._machine.arena.num_growths:
            self._num_growths = self._machine.arena.num_growths
            self._recorded.clear()


def _is_decode(works: tuple[Work, ...]) -> bool:
    """One token each, and a draw, and nothing else to tell."""
    if len(works) > HEAD_ROWS:
        return False
    return all(len(work.tokens) == 1 and work.draw is not None and not work.successors for work in works)
