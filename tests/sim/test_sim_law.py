"""Laws learnt from timed steps, and laws as files. Knows: made-up steps. Does not know: a model."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from quire.errors import InvalidSetting, StartError
from quire.scheduling.cost import Coefficients, StepShape, num_chunk_pairs
from quire.sim.asked import device_of
from quire.sim.device import ModelledDevice, Pace, Unsteady, unsteady_of
from quire.sim.law import law_of, read_law, write_law

LAW = ModelledDevice(Coefficients(0.01, 1e-4, 5e-4, 1e-4, 1e-6, 1e-7), 8)


def steps(count: int, noise: float) -> list[tuple[StepShape, float]]:
    random, timed = Random(3), []
    for number in range(count):
        rows, prompt = random.randint(1, 32), random.choice((0, 0, 40, 300))
        pairs = num_chunk_pairs(0, prompt) if prompt else 0
        shape = StepShape(rows + prompt, rows, rows * random.randint(10, 500) + prompt, pairs)
        timed.append(
            (shape, LAW.seconds(shape) * (1 + noise * random.choice((-1, 1))) * (3 if number % 50 == 0 else 1))
        )
    return timed


def test_a_learnt_law_keeps_the_mean_and_the_tail_of_what_was_timed() -> None:
    timed = steps(2000, 0.1)
    device = law_of(timed)
    assert sum(device.mean_s(shape) for shape, _ in timed) == pytest.approx(sum(each for _, each in timed), rel=0.02)
    shape, _ = timed[1]
    drawn = [device.drawn_s(shape, number / 1000) for number in range(1000)]
    assert sum(drawn) / 1000 == pytest.approx(device.mean_s(shape), rel=0.01)
    assert max(drawn) > 2.5 * device.mean_s(shape), "one step in fifty took three times as long"


def test_steps_that_read_prompts_are_unsteady_in_their_own_way() -> None:
    reading, drawing = StepShape(64, 1, 64, num_chunk_pairs(0, 64)), StepShape(64, 64, 64)
    timed = [(reading, 2 * LAW.seconds(reading))] * 20 + [(drawing, 0.5 * LAW.seconds(drawing))] * 20
    device = ModelledDevice(LAW.law, LAW.knee_tokens, unsteady_of(LAW, timed))
    assert device.mean_s(reading) == pytest.approx(2 * LAW.seconds(reading))
    assert device.mean_s(drawing) == pytest.approx(0.5 * LAW.seconds(drawing))
    larger, smaller = StepShape(900, 1, 900, 1000), StepShape(1, 1, 5)
    assert device.mean_s(larger) == pytest.approx(2 * LAW.seconds(larger))
    assert device.mean_s(smaller) == pytest.approx(0.5 * LAW.seconds(smaller))


def test_only_one_kind_was_timed() -> None:
    drawing, reading = StepShape(4, 4, 64), StepShape(64, 1, 64, num_chunk_pairs(0, 64))
    for known, other in ((drawing, reading), (reading, drawing)):
        device = ModelledDevice(LAW.law, LAW.knee_tokens, unsteady_of(LAW, [(known, 3 * LAW.seconds(known))] * 3))
        assert device.mean_s(other) == pytest.approx(3 * LAW.seconds(other)), "what is known is taken for the rest"


def test_a_pace_over_time() -> None:
    pace = Pace(5.0, (1.0, 2.0))
    assert [pace.at(now_s) for now_s in (0.0, 4.9, 5.0, 99.0)] == [1.0, 1.0, 2.0, 2.0]


def test_a_law_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    device = law_of(steps(200, 0.1))
    write_law(path, device)
    assert read_law(path) == device == device_of(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"fixed_s": -1.0},
        {"fixed_s": "much"},
        {"unsteady": [{"reads": False, "most_tokens": 8, "ratios": [0.0]}]},
        {"unsteady": [{"reads": False, "most_tokens": 8, "ratios": []}]},
        {"unsteady": [{"reads": False, "most_tokens": 8, "ratios": [1.0]}] * 2},
    ],
)
def test_what_is_no_law_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "law.json"
    write_law(path, LAW)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidSetting):
        read_law(path)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StartError):
        read_law(tmp_path / "none.json")
    with pytest.raises(StartError):
        write_law(tmp_path / "none" / "law.json", LAW)


def test_a_device_without_unsteadiness_is_exact() -> None:
    shape = StepShape(9, 9, 90)
    assert LAW.drawn_s(shape, 0.99) == LAW.mean_s(shape) == LAW.seconds(shape)
    assert Unsteady(True, 4, (1.0, 3.0)).mean == 2.0
