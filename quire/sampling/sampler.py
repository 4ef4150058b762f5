"""Draws for many rows at once, with next to no work in Python where the same sequences draw again.

Knows: draws, their order in the step, and the kernel's door. Does not know: sequences, or how a token is chosen.

Legend: R rows, V vocabulary, D draws, B biases, K likeliest tokens told.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire import step
from quire.ops.device import Device
from quire.ops.refine import Wanted, wanted
from quire.ops.sample import NOT_FINITE, NOTHING_ALLOWED, ROW, Drawn, Rows, TokenCounts, make_drawn, sample
from quire.sampling.processors import process
from quire.sampling.record import Record, make_record
from quire.sampling.refining import Refine, refine_for, told_roughly, wanted_by
from quire.sampling.restrictions import RestrictedRows
from quire.step import LEAST_LOGPROB, Draw, TokenLogprob, WorkResult

ERRORS = {
    NOT_FINITE: step.LOGITS_NOT_FINITE,
    NOTHING_ALLOWED: step.NOTHING_ALLOWED,
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Draws that stood together in a step, ready to stand together in the next one."""

    ids: list[int]  # of the Draw objects, which `records` keeps alive
    records: list[Record]
    rows: Rows
    positions_R: np.ndarray  # a field of rows.params_R
    counts_R: list[TokenCounts | None] | None
    drawn: Drawn
    plain: bool  # one draw a row, and no log probabilities
    restricted: RestrictedRows | None  # where any row is
    processed: list[int]  # rows that have logits processors
    wanted: Wanted | None  # of a rough head


@dataclass(frozen=True, slots=True)
class Ordered:
    """A draw under way; `tokens_D` are on the device already."""

    device: Any
    batch: Batch
    order: Any
    vocab_size: int

    @property
    def tokens_D(self) -> Any:
        """int32, -1 where a row failed."""
        return self.order.tokens_D

    def results(self) -> list[WorkResult]:
        """One result a row; waits until they have come back."""
        return _told_of(self.batch, self.device.finish_draw(self.order, self.batch.drawn), self.vocab_size)


class Sampler:
    """Turns logits into results.

    A sequence shows the same `Draw` object step after step, its history growing; so whatever depends on the object
    alone is made once, and tokens are counted as they come. What no longer stands in the step's slice is forgotten: a
    sequence that comes back is prepared, and its history counted, again (5 ms for 100,000 tokens, 70,000 of them
    different; where they repeat as in text, far less). Penalties then cost some 10 ns a different token and step.
    """

    __slots__ = ("_batches", "_device")

    def __init__(self, device: Device) -> None:
        self._device = device
        self._batches: list[Batch] = []

    def draw(
        self,
        logits_RV: np.ndarray,
        draws: SequenceOf[Draw],
        place: int = 0,
        mask_RW: np.ndarray | None = None,
        refine: Refine | None = None,
    ) -> list[WorkResult]:
        """One result for each row of `logits_RV` (float32), drawn as `draws` say.

        A step that draws from many rows gives them in slices, `place` 0, 1, ...; `finish(num_places)` ends it. A row
        that holds NaN or infinity, or of which bans and mask leave nothing, gives a result with `error` and no token.
        `mask_RW` (int32) counts for the rows whose draws have a constraint. A row whose logits processor fails gives a
        result with `error` too. `refine` comes with the logits of a rough head.
        """
        batch = self._batch(draws, logits_RV.shape[1], place)
        if batch.restricted is not None:
            mask_RW = batch.restricted.mask(mask_RW)
        if refine is not None and batch.wanted is not None:
            refine_for(refine, logits_RV, batch.wanted, mask_RW)
        if batch.processed:
            results = self._draw_processed(logits_RV, batch, mask_RW)
        else:
            results = self._draw_batch(logits_RV, batch, mask_RW)
        return results if refine is None or batch.plain else self._tell_exactly(logits_RV, batch, results, refine)

    def order(self, logits_RV: Any, draws: SequenceOf[Draw], lead: int = 0) -> Ordered:
        """`draw` begun on a device that need not be waited for, of rows that ask for nothing but a token.

        `lead` tokens that are not in the draws' histories yet stand between them and the drawn one.
        """
        batch = self._batch(draws, logits_RV.shape[1], 0)
        batch.positions_R[:] = [len(record.draw.history) + lead for record in batch.records]
        device: Any = self._device
        return Ordered(device, batch, device.order_draw(logits_RV, batch.rows), logits_RV.shape[1])

    def _draw_batch(self, logits_RV: np.ndarray, batch: Batch, mask_RW: np.ndarray | None) -> list[WorkResult]:
        batch.positions_R[:] = [len(record.draw.history) for record in batch.records]
        if batch.counts_R is not None:
            for record in batch.records:
                if record.counts is not None:
                    record.counts.catch_up(record.draw.history)
        failed = sample(self._device, logits_RV, batch.rows, batch.drawn, batch.counts_R, mask_RW)
        return _told_of(batch, failed, logits_RV.shape[1])

    def _draw_processed(self, logits_RV: np.ndarray, batch: Batch, mask_RW: np.ndarray | None) -> list[WorkResult]:
        """The same, after the rows that have processors went through them; what the model thought stays as it was."""
        raw, failures = {}, {}
        for row in batch.processed:
            raw[row] = self._device.fetch(logits_RV[row]).copy()
            if np.isfinite(raw[row]).all():
                changed_V, failures[row] = process(raw[row], batch.records[row].draw)
                logits_RV[row] = self._device.put(changed_V)
            else:  # the draw would take minus infinity for a processor's
                failures[row] = ERRORS[NOT_FINITE]
        results = self._draw_batch(logits_RV, batch, mask_RW)
        for row, row_V in raw.items():
            logits_RV[row] = self._device.put(row_V)
            problem, result = failures[row], results[row]
            if problem is not None:
                results[row] = WorkResult(error=problem)
            elif result.logprobs:
                num_top = batch.records[row].draw.num_top or 0
                row_DV = self._device.put(np.repeat(row_V[None], len(result.tokens), axis=0))
                thought = told(self._device, row_DV, result.tokens, num_top)
                results[row] = WorkResult(result.tokens, tuple(thought or ()))
        return results

    def _tell_exactly(
        self, logits_RV: np.ndarray, batch: Batch, results: list[WorkResult], refine: Refine
    ) -> list[WorkResult]:
        """`results`, with log probabilities told again where a drawn token was rough."""
        for row in told_roughly(logits_RV, results):
            tokens = results[row].tokens
            refine(logits_RV, wanted([tokens if each == row else () for each in range(len(results))]), None)
            row_DV = np.repeat(logits_RV[row : row + 1], len(tokens), axis=0)
            thought = told(self._device, row_DV, tokens, batch.records[row].draw.num_top or 0)
            results[row] = WorkResult(tokens, tuple(thought or ()))
        return results

    def finish(self, num_places: int) -> None:
        """Forget slices beyond those that the step had."""
        del self._batches[num_places:]

    def _batch(self, draws: SequenceOf[Draw], vocab_size: int, place: int) -> Batch:
        ids = list(map(id, draws))
        if place < len(self._batches) and self._batches[place].ids == ids:
            return self._batches[place]
        known = {key: record for batch in self._batches for key, record in zip(batch.ids, batch.records, strict=True)}
        make = self._device.kernels.token_counts
        records = [known.get(key) or make_record(draw, vocab_size, make) for key, draw in zip(ids, draws, strict=True)]
        batch = _make_batch(ids, records)
        self._batches[place : place + 1] = [batch]
        return batch


def _told_of(batch: Batch, num_failed: int, vocab_size: int) -> list[WorkResult]:
    """What `batch.drawn` says, row by row."""
    if batch.plain and not num_failed:
        return [WorkResult((token,)) for token in batch.drawn.tokens_D.tolist()]
    return list(_results(batch, vocab_size))


def told(
    device: Device, logits_RV: np.ndarray, tokens: SequenceOf[int], num_top: int, refine: Refine | None = None
) -> list[TokenLogprob] | None:
    """What the model thought of `tokens`, one for each row of logits; None if a row is not finite. `refine` comes with
    the logits of a rough head."""
    if refine is not None:
        refine(logits_RV, wanted([(token,) for token in tokens]), None)
    num_rows, vocab_size = logits_RV.shape
    params_R = np.zeros(num_rows, ROW)
    params_R["given"], params_R["num_top"], params_R["num_draws"] = tokens, num_top, 1
    params_R["top_p"] = params_R["repetition"] = 1.0
    params_R["first_draw"] = np.arange(num_rows)
    rows, drawn = _rows(params_R, np.zeros(num_rows, np.int32), ()), make_drawn(num_rows, num_rows, num_top)
    if sample(device, logits_RV, rows, drawn):
        return None
    tops = _tops(drawn, min(num_top, vocab_size))
    return list(map(TokenLogprob, tokens, _finite(drawn.logprobs_D), tops, drawn.ranks_D.tolist()))


def _make_batch(ids: list[int], records: list[Record]) -> Batch:
    params_R = np.frombuffer(b"".join([record.params for record in records]), ROW).copy()
    for first, number in (("first_draw", "num_draws"), ("first_bias", "num_bias")):
        params_R[first] = np.cumsum(params_R[number]) - params_R[number]
    indices_D = np.array([index for record in records for index in record.draw.indices], np.int32)
    counts = [record.counts for record in records]
    num_top = max(params_R["num_top"].tolist(), default=-1)
    draws, restrictions = [record.draw for record in records], [record.restriction for record in records]
    return Batch(
        ids,
        records,
        _rows(params_R, indices_D, [pair for record in records for pair in record.bias]),
        params_R["position"],
        counts if any(counts_of is not None for counts_of in counts) else None,
        make_drawn(len(records), len(indices_D), max(num_top, 0)),
        plain=num_top < 0 and all(len(record.draw.indices) == 1 for record in records),
        restricted=RestrictedRows(draws, restrictions) if any(restrictions) else None,
        processed=[row for row, draw in enumerate(draws) if draw.params.logits_processors],
        wanted=wanted_by(records),
    )


def _rows(params_R: np.ndarray, indices_D: np.ndarray, bias: SequenceOf[tuple[int, float]]) -> Rows:
    ids_B = np.array([token for token, _ in bias], np.int32)
    return Rows(params_R, indices_D, ids_B, np.array([value for _, value in bias], np.float32))


def _tops(drawn: Drawn, width: int) -> Iterable[tuple[tuple[int, float], ...]]:
    for ids, logprobs in zip(drawn.top_ids_RK.tolist(), _finite(drawn.top_logprobs_RK), strict=True):
        yield tuple(zip(ids[:width], logprobs[:width], strict=True))


def _finite(logprobs: np.ndarray) -> Any:
    """As lists: where the model gives a token no chance at all there is a number too."""
    return np.maximum(logprobs, LEAST_LOGPROB).tolist()


def _results(batch: Batch, vocab_size: int) -> Iterable[WorkResult]:
    drawn = batch.drawn
    tokens, logprobs, ranks = drawn.tokens_D.tolist(), _finite(drawn.logprobs_D), drawn.ranks_D.tolist()
    tops = _tops(drawn, vocab_size)
    first = 0
    for record, status, top in zip(batch.records, drawn.status_R.tolist(), tops, strict=True):
        end = first + len(record.draw.indices)
        if status:
            yield WorkResult(error=ERRORS[status])
        elif record.draw.num_top is None:
            yield WorkResult(tuple(tokens[first:end]))
        else:
            best = top[: record.draw.num_top]
            own = tuple(TokenLogprob(tokens[i], logprobs[i], best, ranks[i]) for i in range(first, end))
            yield WorkResult(tuple(tokens[first:end]), own)
        first = end
