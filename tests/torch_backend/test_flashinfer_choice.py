"""Who computes attention is chosen by timing, kind by kind; with a clock and a device that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire.accelerator import installed_optional
from quire.attention_shape import KINDS
from quire.engine.attention_choice import choose_attention, shape_of
from quire.errors import InvalidSetting
from quire.hardware import Hardware
from quire.llm import BUNDLED
from quire.model_spec import ModelSpec, read_model_spec
from quire.plan import Plan, plan
from quire.settings import EngineSettings

CPU = Hardware("a processor", 4, 8 * 2**30, 4 * 2**30)


class Device:
    """Takes the times that it is told, kind by kind: (ours, theirs)."""

    attention_failures = (RuntimeError,)

    def __init__(self, times: dict[str, tuple[float, float]], found: bool = True, off: float = 0.0) -> None:
        self.times, self.found, self.off = times, found, off
        self.now, self.used, self.asked = 0.0, (), list[Any]()

    def other_attention(self, shape: Any, compiles: bool) -> tuple[Any, str]:
        self.asked.append(compiles)
        return ("library", "flashinfer 0.6.18") if self.found else (None, "these are of 80")

    def attention_trial(self, other: Any, shape: Any, kind: str, records: bool) -> Any:
        if kind not in self.times:
            raise RuntimeError("no kernel image\nis available")
        device, (ours, theirs) = self, self.times[kind]

        def takes(seconds: float) -> Any:
            def run() -> None:
                device.now += seconds

            return run

        class Trial:
            def difference(self) -> float:
                return device.off

        trial: Any = Trial()
        trial.ours, trial.theirs = takes(ours), takes(theirs)
        return trial

    def synchronize(self) -> None:
        self.now += 0.0

    def use_attention(self, other: Any, kinds: dict[str, str], others: dict[str, str]) -> None:
        self.used = (other, kinds, others)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_model_spec(Path(BUNDLED))


def on_a_gpu(spec: ModelSpec, **changes: Any) -> Plan:
    return replace(
        plan(EngineSettings(device="cpu"), CPU, spec), **{"attention_backend": "timed", "head_rows": 256, **changes}
    )


def choose(chosen: Plan, spec: ModelSpec, device: Device) -> tuple[str, ...]:
    return choose_attention(chosen, spec, device, lambda: device.now)  # type: ignore[arg-type]


def test_each_kind_goes_where_it_is_faster(spec: ModelSpec) -> None:
    device = Device({"tokens": (1.0, 1.3), "prompts": (2.0, 1.0), "mixed": (1.0, 0.99)})
    notes = choose(on_a_gpu(spec), spec, device)
    _, kinds, others = device.used
    assert set(kinds) == {"prompts"}
    assert set(others) == {"tokens", "mixed"}
    assert notes == (
        "attention of tokens: triton (flashinfer 0.6.18 has 0.77 times the speed of quire's own in a typical step)",
        "attention of prompts: flashinfer 0.6.18 (flashinfer 0.6.18 has 2.00 times the speed of quire's own in a "
        "typical step)",
        "attention of mixed: triton (flashinfer 0.6.18 has 1.01 times the speed of quire's own in a typical step)",
    )
    assert device.asked == [False], "auto compiles nothing"


def test_all_or_nothing_is_faster(spec: ModelSpec) -> None:
    for theirs, expected in ((0.5, set(KINDS)), (1.5, set())):
        device = Device(dict.fromkeys(KINDS, (1.0, theirs)))
        choose(on_a_gpu(spec), spec, device)
        assert set(device.used[1]) == expected


def test_insisting_takes_it_however_slow_and_lets_it_compile(spec: ModelSpec) -> None:
    device = Device(dict.fromkeys(KINDS, (1.0, 9.0)))
    choose(on_a_gpu(spec, attention_backend="flashinfer"), spec, device)
    assert set(device.used[1]) == set(KINDS)
    assert device.asked == [True]


def test_one_that_fails_or_computes_something_else_is_not_taken(spec: ModelSpec) -> None:
    fails = Device({"tokens": (1.0, 0.5), "prompts": (1.0, 0.5)})
    notes = choose(on_a_gpu(spec), spec, fails)
    assert set(fails.used[1]) == {"tokens", "prompts"}
    assert notes[2] == "attention of mixed: triton (flashinfer 0.6.18: it failed: RuntimeError: no kernel image)"
    for off in (0.2, float("nan")):
        differs = Device(dict.fromkeys(KINDS, (1.0, 0.5)), off=off)
        choose(on_a_gpu(spec), spec, differs)
        assert not differs.used[1]
        with pytest.raises(InvalidSetting, match="computes something else"):
            choose(on_a_gpu(spec, attention_backend="flashinfer"), spec, differs)


def test_what_cannot_be_is_a_note_or_where_it_was_asked_for_an_error(spec: ModelSpec) -> None:
    device = Device({}, found=False)
    (note,) = choose(on_a_gpu(spec), spec, device)
    assert note.startswith("FlashInfer is installed and not used: these are of 80; --attention-backend")
    with pytest.raises(InvalidSetting, match="cannot be had here; got these are of 80; allowed: auto, triton"):
        choose(on_a_gpu(spec, attention_backend="flashinfer"), spec, device)
    assert device.used == ()


def test_nobody_is_asked_where_our_own_kernels_were_chosen(spec: ModelSpec) -> None:
    device = Device(dict.fromkeys(KINDS, (1.0, 0.1)))
    assert choose(on_a_gpu(spec, attention_backend="quire"), spec, device) == ()
    assert device.asked == []


def test_packages_are_looked_for_and_not_imported() -> None:
    assert installed_optional(lambda name: None) == ()
    assert installed_optional(lambda name: name) == ("flashinfer",)


def test_there_is_room_for_the_largest_recorded_step(spec: ModelSpec) -> None:
    assert shape_of(on_a_gpu(spec, max_num_seqs=20), spec).most_seqs == 24
    assert shape_of(on_a_gpu(spec, max_num_seqs=1000), spec).most_seqs == 256
