"""A build of the engine that is injured now and then, as a machine with a fault would be: for `integrity.py`.

    logits-*    one logit of one row becomes NaN or infinite before the draw
    pages-*     keys and values of one slot that a running sequence reads become NaN or infinite
    id          a token is drawn that the vocabulary does not have
    stuck       a sequence draws one token again and again from here on
    raises      a step raises as long as one sequence is in it
    weights     one bit of a packed weight flips, for good

Which, when and whom is drawn from a seed; every injury is written down with the requests that it touches, and again
when all of these have ended. What it is told stands in the variable QUIRE_INJURIES as JSON: `kinds`, `number` of
injuries, `every` so many steps on average, `seed`, `log` (a file).

Knows: the runner's insides. Does not know: who asks.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quire.engine.__main__ import main
from quire.engine.build import Built
from quire.ops.rope_store import rope_store
from quire.runner.runner import ModelRunner
from quire.runner.weight_sums import arrays_of
from quire.scheduling.scheduler import Scheduler
from quire.step import Step, StepResult, Work

WRONG = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


class Injured:
    """`runner`, with a fault."""

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, orders: dict[str, Any]) -> None:
        self._runner, self._scheduler = runner, scheduler
        self._rng = random.Random(orders["seed"])
        self._kinds, self._left, self._every = orders["kinds"], orders["number"], orders["every"]
        self._log = Path(orders["log"])
        self._num_steps, self._next = 0, self._gap()
        self._watched: list[dict[str, Any]] = []
        self._stuck: dict[int, int] = {}
        self._raising: set[int] = set()
        self._logits: tuple[int, float] | None = None
        self._sampler = runner._sampler
        runner._sampler = self  # type: ignore[assignment]

    def run(self, step: Step) -> StepResult:
        """As the runner; where an injury is due, with it."""
        if step.id != self._num_steps:  # else a part of the same one, again
            self._num_steps = step.id
            self._look_after()
        if any(work.seq_id in self._raising for work in step.works):
            raise MemoryError("an injury")
        victims = [
            work for work in step.works if work.draw is not None and len(work.draw.history) > work.draw.num_prompt
        ]
        kind = ""
        if victims and self._left and self._num_steps >= self._next:
            self._left, self._next = self._left - 1, self._num_steps + self._gap()
            kind = self._rng.choice(self._kinds)
        victim = self._rng.choice(victims) if kind else None
        if victim is None:
            return self._with_stuck(step, self._runner.run(step))
        self._injure(kind, victim, step)
        if victim.seq_id in self._raising:
            raise MemoryError("an injury")
        result = self._with_stuck(step, self._runner.run(step))
        return self._with_wrong_id(step, result, victim) if kind == "id" else result

    def rest(self) -> None:
        """Nobody is here."""
        self._look_after()
        self._runner.rest()

    def _gap(self) -> int:
        return 1 + int(self._rng.expovariate(1.0 / self._every)) if self._every else 1

    def _injure(self, kind: str, victim: Work, step: Step) -> None:
        seqs = [victim.seq_id]
        what, _, wrong = kind.partition("-")
        if what == "logits":
            drawing = [work.seq_id for work in step.works if work.draw is not None]
            self._logits = drawing.index(victim.seq_id), WRONG[wrong]
        elif what == "pages":
            seqs = self._spoil(victim, step, WRONG[wrong])
        elif what == "stuck":
            assert victim.draw is not None
            self._stuck[victim.seq_id] = victim.draw.history[-1]
        elif what == "raises":
            self._raising.add(victim.seq_id)
        elif what == "weights":
            seqs = []
            self._flip()
        names = sorted({self._scheduler.name_of(seq) or "" for seq in seqs})
        injury = {"kind": kind, "step": self._num_steps, "requests": names, "seqs": seqs}
        self._watched.append(injury)
        self._say({"event": "injured", **injury})

    def _look_after(self) -> None:
        """Say of whom nothing is left, and after how many steps."""
        for injury in list(self._watched):
            if not any(self._scheduler.name_of(seq) for seq in injury["seqs"]):
                self._watched.remove(injury)
                for seq in injury["seqs"]:
                    self._stuck.pop(seq, None)
                    self._raising.discard(seq)
                self._say({"event": "ended", **injury, "after_steps": self._num_steps - injury["step"]})

    def _say(self, what: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(what) + "\n")

    def __getattr__(self, name: str) -> Any:
        """As the sampler, whose place it takes in the runner."""
        return getattr(self._sampler, name)

    def draw(self, logits_RV: np.ndarray, draws: Any, place: int = 0, mask_RW: Any = None, refine: Any = None) -> Any:
        """As the sampler draws, from what is left of the logits."""
        if self._logits is not None and self._logits[0] < len(draws) and place == 0:
            row, wrong = self._logits
            self._logits = None
            logits_RV[row, self._rng.randrange(logits_RV.shape[1])] = wrong
        return self._sampler.draw(logits_RV, draws, place, mask_RW, refine)

    def _spoil(self, victim: Work, step: Step, wrong: float) -> list[int]:
        """Write over a slot that the victim reads; all who read it."""
        machine = self._runner.machine
        kv, size = machine.kv, machine.block_size
        position = self._rng.randrange(victim.start)
        block = victim.block_table[position // size]
        half, dim = kv.head_dim // 2, kv.head_dim
        qkv = np.zeros((1, (1 + 2 * kv.num_kv_heads) * dim), np.float32)
        of_keys = self._rng.random() < 0.5
        first = dim if of_keys else (1 + kv.num_kv_heads) * dim
        qkv[0, first + self._rng.randrange(kv.num_kv_heads) * dim] = wrong
        ones, zero = np.ones((1, half), np.float32), np.zeros(1, np.int32)
        slots = np.array([block * size + position % size], np.int32)
        q_out = np.empty((1, 1, dim), np.float32)
        layer = self._rng.randrange(kv.num_layers)
        rope_store(machine.device, qkv, zero, slots, ones, ones, kv, layer, None, None, 0.0, q_out)
        place = position // size
        return [
            work.seq_id
            for work in step.works
            if len(work.block_table) > place and work.block_table[place] == block and work.start > position
        ]

    def _flip(self) -> None:
        arrays = [words for name, words in arrays_of(self._runner.model) if name.endswith("weight")]
        words = self._rng.choices(arrays, [each.nbytes for each in arrays])[0]
        memory = (ctypes.c_uint8 * words.nbytes).from_address(words.ctypes.data)
        memory[self._rng.randrange(words.nbytes)] ^= 1 << self._rng.randrange(8)

    def _with_stuck(self, step: Step, result: StepResult) -> StepResult:
        if not self._stuck:
            return result
        works = [
            replace(each, tokens=(self._stuck[work.seq_id],)) if work.seq_id in self._stuck and each.tokens else each
            for work, each in zip(step.works, result.works, strict=True)
        ]
        return StepResult(tuple(works))

    def _with_wrong_id(self, step: Step, result: StepResult, victim: Work) -> StepResult:
        wrong = self._rng.choice([-1, self._runner.model.spec.vocab_size, 2**31 - 1])
        works = [
            replace(each, tokens=(wrong, *each.tokens[1:])) if work is victim else each
            for work, each in zip(step.works, result.works, strict=True)
        ]
        return StepResult(tuple(works))


def alter(built: Built) -> None:
    """Put the fault in."""
    runner = built.engine.runner
    assert isinstance(runner, ModelRunner)
    built.engine.runner = Injured(runner, built.engine.scheduler, json.loads(os.environ["QUIRE_INJURIES"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], alter))
