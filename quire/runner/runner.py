"""run(Step) -> StepResult: copies, inputs, model, logits, draws. Decides nothing about who runs.

Knows: a model and its machine. Does not know: the scheduler, text, or time.

Legend: T tokens in the step, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.ops.sample import NOT_FINITE
from quire.runner.flaws import without_flawed
from quire.runner.inputs import Machine, build_forward, on_device
from quire.runner.masks import Ahead, Keeper, Masks
from quire.runner.replay import Replay
from quire.runner.run_ahead import RunAhead
from quire.sampling.sampler import ERRORS, Sampler, told
from quire.step import Draw, Step, StepResult, TokenLogprob, Work, WorkResult

LOST = WorkResult(error=ERRORS[NOT_FINITE])
NOTHING_AHEAD = Ahead({}, {})


class ModelRunner:
    """One model on one machine. Without `replays` every step is launched op by op; the bits are the same.

    On a GPU `records` says whether decode steps are recorded and replayed. Without a `keeper` of grammars, draws with a
    constraint fail.
    """

    def __init__(
        self,
        model: Model,
        machine: Machine,
        replays: bool = True,
        keeper: Keeper | None = None,
        records: bool = True,
    ) -> None:
        self.model = model
        self.machine = machine
        self._replay = Replay(model, machine) if replays and machine.device.kind == "cpu" else None
        self._head_rows = machine.head_rows
        self._sampler = Sampler(machine.device)
        self._refine = partial(model.refine, machine.device, machine.arena) if model.is_rough else None
        self._masks = Masks(keeper, model.spec.vocab_size) if keeper is not None else None
        self.ahead = (
            RunAhead(model, machine, self._sampler, records) if replays and machine.device.kind != "cpu" else None
        )

    def run(self, step: Step) -> StepResult:
        """Compute every work of `step`; K and V of its tokens are in the cache afterwards."""
        if step.copies:
            self.machine.kv.copy_blocks(step.copies)
        draws = [work.draw for work in step.works if work.draw is not None]
        masks = self._masks if self._masks is not None and self._masks.begin(draws) else None
        found = self.ahead.run(step, masks is None) if self.ahead is not None else None
        if found is not None:
            return found
        replay = self._replay
        logits_RV = replay.logits(step) if replay is not None else None
        if replay is not None and logits_RV is not None:
            results = self._choose(logits_RV, draws, 0, masks, masks.wait() if masks is not None else NOTHING_AHEAD)
            self._sampler.finish(1)
            return StepResult(tuple(without_flawed(step.works, replay.flaws_T1, results)))
        return self._run_all(step, masks)

    def rest(self) -> None:
        """There is nothing to compute: answers' matchers are let go."""
        if self._masks is not None:
            self._masks.rest()

    def _choose(
        self, logits_RV: np.ndarray, draws: list[Draw], number: int, masks: Masks | None, ahead: Ahead
    ) -> list[WorkResult]:
        """Slice `number` of the step's draws; a row whose mask failed says why, one that goes on by force how."""
        first = number * self._head_rows
        mask_RW = masks.rows(first, len(draws)) if masks is not None else None
        results = self._sampler.draw(logits_RV, draws, number, mask_RW, self._refine)
        rows = range(first, first + len(draws))
        for row, tokens in ahead.forced.items():
            if row in rows and results[row - first].error is None:
                results[row - first] = replace(results[row - first], forced=tokens[1:])
        for row, why in ahead.failed.items():
            if row in rows:
                results[row - first] = WorkResult(error=why)
        return results

    def _run_all(self, step: Step, masks: Masks | None) -> StepResult:
        """Any step, op by op."""
        drawing = [place for place, work in enumerate(step.works) if work.draw is not None]
        inputs = build_forward(step, self.machine)
        forward = on_device(inputs, drawing)
        if not any(work.prompt_logprobs is not None and work.successors for work in step.works):
            ends_RH = self.model.ends(forward, np.array(drawing, np.int32))
            results = self._draw(step, forward, ends_RH, list(range(len(drawing))), masks)
            return StepResult(tuple(without_flawed(step.works, self.machine.device.fetch(forward.flaws_T1), results)))
        hidden_TH = self.model.hidden(forward)
        starts = inputs.query_starts_S1.tolist()
        results = self._draw(step, forward, hidden_TH, [starts[place + 1] - 1 for place in drawing], masks)
        for place, work in enumerate(step.works):
            if work.prompt_logprobs is not None and work.successors:
                prompt = self._prompt_logprobs(work, starts[place], forward, hidden_TH)
                results[place] = replace(results[place], prompt_logprobs=prompt) if prompt is not None else LOST
        return StepResult(tuple(without_flawed(step.works, self.machine.device.fetch(forward.flaws_T1), results)))

    def _draw(
        self, step: Step, forward: Forward, hidden_TH: np.ndarray, rows: list[int], masks: Masks | None
    ) -> list[WorkResult]:
        """One result a work, in order; works that draw nothing get an empty one. `rows`: of those that draw."""
        results = [WorkResult()] * len(step.works)
        drawing = [(place, work.draw) for place, work in enumerate(step.works) if work.draw is not None]
        ahead = NOTHING_AHEAD
        for number, first in enumerate(range(0, len(drawing), self._head_rows)):
            slice_ = drawing[first : first + self._head_rows]
            rows_R = self.machine.device.put(np.array(rows[first : first + self._head_rows], np.int32))
            logits_RV = self.model.logits(forward, hidden_TH, rows_R)
            if masks is not None and number == 0:
                ahead = masks.wait()
            drawn = self._choose(logits_RV, [draw for _, draw in slice_], number, masks, ahead)
            for (place, _), result in zip(slice_, drawn, strict=True):
                results[place] = result
        self._sampler.finish(-(-len(drawing) // self._head_rows))
        return results

    def _prompt_logprobs(
        self, work: Work, start: int, forward: Forward, hidden_TH: np.ndarray
    ) -> tuple[TokenLogprob, ...] | None:
        """What the model thought of each prompt token that follows one of this work's rows; None if not finite."""
        result: list[TokenLogprob] = []
        for first in range(0, len(work.successors), self._head_rows):
            successors = work.successors[first : first + self._head_rows]
            rows_R = np.arange(start + first, start + first + len(successors), dtype=np.int32)
            logits_RV = self.model.logits(forward, hidden_TH, self.machine.device.put(rows_R))
            slice_ = told(self.machine.device, logits_RV, successors, work.prompt_logprobs or 0, self._refine)
            if slice_ is None:
                return None
            result += slice_
        return tuple(result)
