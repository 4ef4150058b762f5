"""The host's half of a draw: parameters go to the device in one copy, what was drawn comes back in another.

Knows: the records of a step's rows by their fields' names. Does not know: requests; how a token is chosen.

Legend: R rows, V vocabulary, W words of 32 tokens, D draws, B biases, K likeliest tokens told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quire.kernels.torch.counts import Counts, CountsTable
from quire.kernels.torch.draws import Outcome, RowTensors
from quire.kernels.torch.lanes import Copyback, Lanes, Uploads

UNIT = 2**42
MAX_HELD = 8  # batches of rows whose parameters stay on the device: the slices of one step

Chain = Callable[[Tensor, RowTensors, Outcome, Tensor | None, Tensor | None], None]


@dataclass(slots=True)
class Held:
    """One batch of rows on the device. `rows` is kept, so that its identity stays its own.

    What is drawn goes to two places in turn, so that a second draw may be ordered before the first one was looked at.
    """

    rows: Any
    tensors: RowTensors
    places: list[tuple[Copyback, Outcome]]
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """A draw that is under way: `tokens_D` (int32) are on the device already for whatever is ordered next."""

    held: Held
    copyback: Copyback
    tokens_D: Tensor


class Drawing:
    """Draws for rows that mostly stay the same from step to step: then only positions, masks and new tokens travel."""

    def __init__(self, lanes: Lanes, uploads: Uploads, chain: Chain) -> None:
        self._lanes, self._uploads, self._chain = lanes, uploads, chain
        self._table: CountsTable | None = None
        self._held: dict[int, Held] = {}

    def reserve(self, num_places: int, vocab_size: int) -> None:
        """Room for the penalties of so many sequences."""
        self._table = CountsTable(self._uploads, num_places, vocab_size, self._lanes.device)

    def token_counts(self, num_prompt: int, vocab_size: int) -> Counts:
        """Counts of a new sequence."""
        if self._table is None or self._table.counts_SV.shape[1] != vocab_size:
            self.reserve(1, vocab_size)
        assert self._table is not None
        return Counts(self._table, num_prompt)

    def sample(
        self,
        logits_RV: Tensor,
        rows: Any,
        drawn: Any,
        counts_R: Sequence[Counts | None] | None = None,
        mask_RW: np.ndarray[Any, Any] | None = None,
    ) -> int:
        """`begin` and, at once, `finish`."""
        return self.finish(self.begin(logits_RV, rows, counts_R, mask_RW), drawn)

    def begin(
        self,
        logits_RV: Tensor,
        rows: Any,
        counts_R: Sequence[Counts | None] | None = None,
        mask_RW: np.ndarray[Any, Any] | None = None,
    ) -> Order:
        """Order the draw and the copy of what comes of it; nothing waits for the device. Of the same rows at most two
        may be under way."""
        held = self._hold(rows)
        held.turn = 1 - held.turn
        copyback, outcome = held.places[held.turn]
        places_R = np.full(len(rows.params_R), -1, np.int32)
        table = None
        if counts_R is not None and self._table is not None:
            table = self._table.update(counts_R)
            places_R[:] = [-1 if counts is None else counts.place for counts in counts_R]
        sent = [np.ascontiguousarray(rows.params_R["position"]), places_R]
        tensors = self._uploads.upload(sent if mask_RW is None else [*sent, mask_RW])
        mask = tensors[2] if mask_RW is not None else None
        now = replace(held.tensors, position_R=tensors[0], counts_R=tensors[1], is_penalised=table is not None)
        self._chain(logits_RV, now, outcome, table, mask)
        copyback.begin()
        return Order(held, copyback, outcome.tokens_D)

    def finish(self, order: Order, drawn: Any) -> int:
        """Wait for the copy and write it to `drawn`; the number of rows that failed."""
        held = order.held
        tokens, status, logprobs, ranks, top_ids, top_logprobs = order.copyback.wait()
        drawn.tokens_D[:], drawn.status_R[:] = tokens, status
        if held.tensors.has_logprobs:
            drawn.logprobs_D[:], drawn.ranks_D[:] = logprobs, ranks
            drawn.top_ids_RK[:], drawn.top_logprobs_RK[:] = top_ids, top_logprobs
        return int(np.count_nonzero(status))

    def _hold(self, rows: Any) -> Held:
        held = self._held.get(id(rows))
        if held is None:
            if len(self._held) >= MAX_HELD:
                del self._held[next(iter(self._held))]
            held = self._held[id(rows)] = self._make(rows)
        return held

    def _make(self, rows: Any) -> Held:
        params, num_rows, num_draws = rows.params_R, len(rows.params_R), len(rows.indices_D)
        num_top = max(int(params["num_top"].max(initial=0)), 0)
        shapes = [
            ((num_draws,), torch.int32), ((num_rows,), torch.int32), ((num_draws,), torch.float64),
            ((num_draws,), torch.int32), ((num_rows, num_top), torch.int32), ((num_rows, num_top), torch.float64),
        ]  # fmt: skip
        copybacks = [Copyback(self._lanes, shapes) for _ in range(2)]
        return Held(rows, self._row_tensors(rows, num_top), [(each, Outcome(*each.tensors)) for each in copybacks])

    def _row_tensors(self, rows: Any, num_top: int) -> RowTensors:
        params = rows.params_R
        num_rows = len(params)
        names = ("top_p", "presence", "frequency", "repetition", "inv_temperature", "top_k", "given", "masked")
        least_R = np.array([math.ceil(each * UNIT) for each in params["min_p"].tolist()], np.int64)
        row_D = np.repeat(np.arange(num_rows, dtype=np.int32), params["num_draws"])
        row_B = np.repeat(np.arange(num_rows, dtype=np.int32), params["num_bias"])
        arrays = [params["seed"].view(np.int64), least_R, *(params[name] for name in names)]
        arrays += [row_D, rows.indices_D, row_B, rows.bias_ids_B, rows.bias_values_B]
        seed, least, *rest = self._uploads.upload(arrays)
        top_p, presence, frequency, repetition, inv_temperature, top_k, given, masked = rest[:8]
        row, index, bias_row, bias_id, bias_value = rest[8:]
        return RowTensors(
            seed, seed, top_p, least, presence, frequency, repetition, inv_temperature, top_k, given, masked,
            masked, row, index, bias_row, bias_id, bias_value,
            is_one_each=bool((params["num_draws"] == 1).all()),
            is_random=bool((params["inv_temperature"] > 0).any()),
            is_truncated=bool(_truncates(params).any()),
            is_penalised=False,
            has_logprobs=bool((params["num_top"] >= 0).any()),
            num_top=num_top,
        )  # fmt: skip


def _truncates(params: Any) -> Any:
    return (params["inv_temperature"] > 0) & ((params["top_k"] > 0) | (params["top_p"] < 1) | (params["min_p"] > 0))
