"""run(Step) -> StepResult: copies, inputs, model, logits, draws. Decides nothing about who runs.

Knows: a model and its machine. Does not know: the scheduler, text, or time.

Legend: T tokens in the step, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.plan import HEAD_ROWS
from quire.runner.inputs import Machine, build_forward
from quire.runner.replay import Replay
from quire.sampling.logprobs import token_logprob
from quire.sampling.sampler import sample
from quire.step import Step, StepResult, TokenLogprob, Work, WorkResult


class ModelRunner:
    """One model on one machine. Without `replays` every step is launched op by op; the bits are the same."""

    def __init__(self, model: Model, machine: Machine, replays: bool = True) -> None:
        self.model = model
        self.machine = machine
        self._replay = Replay(model, machine) if replays else None

    def run(self, step: Step) -> StepResult:
        """Compute every work of `step`; K and V of its tokens are in the cache afterwards."""
        if step.copies:
            self.machine.kv.copy_blocks(step.copies)
        logits_RV = self._replay.logits(step) if self._replay is not None else None
        if logits_RV is not None:
            return StepResult(tuple(_draw_rows(logits_RV, step.works)))
        return self._run_all(step)

    def _run_all(self, step: Step) -> StepResult:
        """Any step, op by op."""
        forward = build_forward(step, self.machine)
        hidden_TH = self.model.hidden(forward)
        starts = forward.query_starts_S1.tolist()
        results = self._draw(step, forward, hidden_TH, starts)
        for place, work in enumerate(step.works):
            if work.prompt_logprobs is not None and work.successors:
                prompt = tuple(self._prompt_logprobs(work, starts[place], forward, hidden_TH))
                results[place] = replace(results[place], prompt_logprobs=prompt)
        return StepResult(tuple(results))

    def _draw(self, step: Step, forward: Forward, hidden_TH: np.ndarray, starts: list[int]) -> list[WorkResult]:
        """One result a work, in order; works that draw nothing get an empty one."""
        results = [WorkResult()] * len(step.works)
        drawing = [place for place, work in enumerate(step.works) if work.draw is not None]
        for first in range(0, len(drawing), HEAD_ROWS):
            places = drawing[first : first + HEAD_ROWS]
            rows_R = np.fromiter((starts[place + 1] - 1 for place in places), np.int32, len(places))
            logits_RV = self.model.logits(forward, hidden_TH, rows_R)
            drawn = _draw_rows(logits_RV, [step.works[place] for place in places])
            for place, result in zip(places, drawn, strict=True):
                results[place] = result
        return results

    def _prompt_logprobs(
        self, work: Work, start: int, forward: Forward, hidden_TH: np.ndarray
    ) -> Iterator[TokenLogprob]:
        """What the model thought of each prompt token that follows one of this work's rows."""
        for first in range(0, len(work.successors), HEAD_ROWS):
            successors = work.successors[first : first + HEAD_ROWS]
            rows_R = np.arange(start + first, start + first + len(successors), dtype=np.int32)
            logits_RV = self.model.logits(forward, hidden_TH, rows_R)
            for logits_V, token in zip(logits_RV, successors, strict=True):
                yield token_logprob(logits_V, token, work.prompt_logprobs or 0)


def _draw_rows(logits_RV: np.ndarray, works: SequenceOf[Work]) -> list[WorkResult]:
    """One result for each row; every work draws."""
    return [sample(logits_V, work.draw) for logits_V, work in zip(logits_RV, works, strict=True) if work.draw]
