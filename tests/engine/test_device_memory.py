"""The KV cache of a GPU after a measured dry run, with a device that only keeps accounts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quire.engine.device_memory import GRAPH_BYTES, MARGIN_BYTES, Use, dearest_steps, fit_pool
from quire.errors import NotEnoughMemory
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import Plan, plan
from quire.settings import EngineSettings
from quire.step import Step, StepResult, WorkResult

MIB = 2**20
FIXED = MARGIN_BYTES + GRAPH_BYTES


class Accounts:
    """A device of `total` bytes on which weights take 100 MiB, and a step what it is told to."""

    def __init__(self, total: int) -> None:
        self.total, self.held, self.peak = total, 100 * MIB, 100 * MIB

    def forget(self) -> None:
        self.held = self.peak = 100 * MIB

    def use(self) -> Use:
        return Use(self.total - self.held, self.held, self.peak)


class Runner:
    """Takes memory for its cache and, in its larger step, for activations."""

    def __init__(self, device: Accounts, cache_bytes: int, step_bytes: int, ran: list[Step]) -> None:
        self.device, self.cache_bytes, self.step_bytes, self.ran = device, cache_bytes, step_bytes, ran

    def run(self, step: Step) -> StepResult:
        self.ran.append(step)
        self.device.held = 100 * MIB + self.cache_bytes + self.step_bytes
        self.device.peak = max(self.device.peak, self.device.held)
        return StepResult(tuple(WorkResult((1,)) for _ in step.works))


@pytest.fixture
def chosen() -> Plan:
    settings = EngineSettings(kv_cache_memory_bytes=800 * MIB, max_num_seqs=8, max_model_len=512)
    planned = plan(settings, probe(), read_model_spec(Path(BUNDLED)))
    return replace(planned, device_bytes=2000 * MIB)


def fitted(chosen: Plan, step_bytes: int, total: int = 4000 * MIB) -> tuple[Plan, str, list[Step]]:
    ran: list[Step] = []
    device = Accounts(total)
    block_bytes = chosen.kv_bytes // chosen.num_blocks
    found, notes = fit_pool(chosen, device, lambda num: Runner(device, num * block_bytes, step_bytes, ran))
    return found, notes[0], ran


def test_a_plan_that_fits_is_kept(chosen: Plan) -> None:
    found, note, ran = fitted(chosen, 200 * MIB)
    assert found == chosen
    assert note == "activations measured: 200 MiB"
    assert [step.num_tokens for step in ran] == [8, 1024, 8]


def test_the_cache_is_cut_to_what_is_left(chosen: Plan) -> None:
    found, note, _ = fitted(chosen, 600 * MIB)
    block_bytes = chosen.kv_bytes // chosen.num_blocks
    assert found.num_blocks == (2000 * MIB - 100 * MIB - 2 * 600 * MIB - FIXED) // block_bytes < chosen.num_blocks
    assert found.kv_bytes == found.num_blocks * block_bytes
    assert f"not {chosen.kv_tokens:,}" in note


def test_what_others_took_meanwhile_is_not_ours(chosen: Plan) -> None:
    found, _, _ = fitted(chosen, 100 * MIB, total=900 * MIB)
    assert found.kv_bytes <= 800 * MIB - 100 * MIB - FIXED


def test_no_room_for_one_sequence_is_refused(chosen: Plan) -> None:
    with pytest.raises(NotEnoughMemory, match=r"activations of 1700 MiB; allowed: 512 tokens or more"):
        fitted(chosen, 1700 * MIB)


def test_the_dearest_steps_fill_what_the_plan_allows(chosen: Plan) -> None:
    longest, prompts, singles = dearest_steps(replace(chosen, max_num_batched_tokens=1200))
    assert [len(work.tokens) for work in prompts.works] == [512, 512, 176]
    assert [len(work.tokens) for work in singles.works] == [1] * 8
    for step in (prompts, singles):
        blocks = [block for work in step.works for block in work.block_table]
        assert sorted(blocks) == list(range(len(blocks)))
    assert [work.start for work in longest.works] == [511] * 8
    assert [work.block_table for work in longest.works] == [[row] * 32 for row in range(8)]


def test_recorded_steps_have_scratch_of_their_own_and_eager_ones_need_none(chosen: Plan) -> None:
    recorded, _, _ = fitted(chosen, 600 * MIB)
    eager, _, _ = fitted(replace(chosen, enforce_eager=True), 600 * MIB)
    assert eager.kv_bytes > recorded.kv_bytes
