"""Decode steps recorded and replayed, with a recorder that, like a GPU's, does not run what it records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.engine.engine import Engine
from quire.llm import BUNDLED
from quire.request import Request, SamplingParams
from quire.runner.graphs import EAGER_USES, LADDER, LEAST_WIDTH, MOST_SHAPES, Graphs, Rows, filled, padded
from tests.engine.test_exactness import serve
from tests.torch_backend.test_run_ahead import plain_requests
from tests.torch_backend.test_torch_engine import build, same

pytest.importorskip("torch")


class Fake:
    """A recorder: `recorded` counts, `broken` makes it fail; a replay runs what was recorded."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.broken = False

    def record(self, run: Callable[[], None]) -> Any:
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1
        fake = self

        class Recording:
            def replay(self) -> None:
                fake.replayed += 1
                run()

        return Recording()


def graphs_of(engine: Engine) -> Graphs:
    graphs: Graphs = engine.runner.ahead.graphs  # type: ignore[attr-defined]
    return graphs


def faked(**options: Any) -> tuple[Engine, Graphs, Fake]:
    engine = build(Path(BUNDLED), "torch:cpu", **options).engine
    graphs, fake = graphs_of(engine), Fake()
    graphs._recorder = fake
    return engine, graphs, fake


def alone(name: str, tokens: int, prompt: tuple[int, ...] = (5, 6, 7)) -> Request:
    return Request(name, prompt, SamplingParams(temperature=0.0, seed=0, max_tokens=tokens, ignore_eos=True))


@pytest.mark.parametrize(
    ("options", "spread"),
    [({}, 3), ({"max_num_batched_tokens": 32}, 7), ({"kv_cache_memory_bytes": 900_000, "max_model_len": 112}, 1)],
    ids=str,
)
def test_answers_are_those_of_the_cpu_whoever_comes_and_goes(options: dict[str, Any], spread: int) -> None:
    asked = plain_requests(15, 3)
    arrivals = [(spread * number, each) for number, each in enumerate(asked)]
    engine, graphs, fake = faked(**options)
    got = serve(engine, arrivals)
    same(got, serve(build(Path(BUNDLED), "cpu", **options).engine, arrivals))
    assert fake.replayed == graphs.num_replayed > 20
    assert fake.recorded == graphs.num_recorded < fake.replayed


def test_nothing_is_recorded_before_a_shape_was_used_twice() -> None:
    engine, _, fake = faked()
    serve(engine, [(0, alone("one", EAGER_USES))])  # the first token is the prompt's
    assert (fake.recorded, fake.replayed) == (0, 0)
    serve(engine, [(0, alone("two", 30))])
    assert fake.recorded == 1
    assert fake.replayed >= 27


def test_inputs_and_outputs_stay_where_they_are() -> None:
    engine, graphs, _ = faked()
    serve(engine, [(0, alone("one", 8))])
    (shape,) = graphs._shapes.values()
    before = [tensor.data_ptr() for tensor in shape.inbox.tensors] + [shape.logits_RV.data_ptr()]
    serve(engine, [(0, alone("two", 8, (9, 8, 7, 6)))])
    assert [tensor.data_ptr() for tensor in shape.inbox.tensors] + [shape.logits_RV.data_ptr()] == before
    assert shape.forward.block_tables_SB.data_ptr() in before


def test_a_recording_that_fails_is_given_up_and_answers_come_all_the_same() -> None:
    engine, graphs, fake = faked()
    fake.broken = True
    got = serve(engine, [(0, alone("one", 20))])
    same(got, serve(build(Path(BUNDLED), "cpu").engine, [(0, alone("one", 20))]))
    assert not graphs.is_on
    assert "capturing" in graphs.problem


def test_a_buffer_that_grew_drops_all_recordings() -> None:
    engine, _, fake = faked()
    serve(engine, [(0, alone("one", 10))])
    machine = engine.runner.machine  # type: ignore[attr-defined]
    machine.arena.view("hidden", (4096, 4096))
    got = serve(engine, [(0, alone("two", 10))])
    same(got, serve(build(Path(BUNDLED), "cpu").engine, [(0, alone("two", 10))]))
    assert fake.recorded == 2


def test_only_the_shapes_used_last_are_kept() -> None:
    engine, graphs, _ = faked()
    device = engine.runner.machine.device  # type: ignore[attr-defined]
    rows = Rows(*(np.zeros(1, np.int32) for _ in range(2)), np.zeros((1, 1), np.int32), np.zeros(1, np.int32))
    assert device.kind == "torch:cpu"
    for number in range(MOST_SHAPES + 5):
        graphs._shapes[1, number] = graphs._make(1, 1)
    graphs._shape_of(rows)
    assert (1, 0) not in graphs._shapes
    assert (1, LEAST_WIDTH) in graphs._shapes


def test_eager_steps_where_they_are_asked_for() -> None:
    engine = build(Path(BUNDLED), "torch:cpu", enforce_eager=True).engine
    assert engine.runner.ahead.graphs is None  # type: ignore[attr-defined]
    got = serve(engine, [(0, alone("one", 20))])
    same(got, serve(build(Path(BUNDLED), "cpu").engine, [(0, alone("one", 20))]))


def test_shapes_are_padded_to_rungs_that_waste_little() -> None:
    assert LADDER[0] == 1
    assert LADDER[-1] == 256
    for num_rows in range(1, 257):
        rung, width = padded(num_rows, 3, 256)
        assert num_rows <= rung <= max(num_rows * 1.25, num_rows + 7)
        assert width == LEAST_WIDTH
    assert padded(17, 65, 20) == (20, 128), "there are logits for so many rows alone"
    assert padded(300, 64, 512) == (300, 64)


def test_rows_beyond_the_own_ones_are_the_last_one_again() -> None:
    rows = Rows(*(np.array(each, np.int32) for each in ([4, 33], [100, 7], [[6, 0, 0], [1, 2, 3]], [11, 12])))
    starts, slots, ends, lens, tables, flaws, _, numbers = filled(rows, 4, 8)
    assert starts.tolist() == [4, 33, 33, 33]
    assert slots.tolist() == [100, 7, 7, 7]
    assert ends.tolist() == [0, 1, 2, 3, 4]
    assert lens.tolist() == [5, 34, 34, 34]
    assert tables[:, :3].tolist() == [[6, 0, 0], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert not tables[:, 3:].any()
    assert numbers.tolist() == [11, 12, 12, 12]
    assert not flaws.any()
    assert all(each.dtype == np.int32 for each in (starts, slots, ends, lens, tables, flaws, numbers))


def test_an_inbox_refuses_other_shapes() -> None:
    engine, _, _ = faked()
    inbox = engine.runner.machine.device.inbox([(3,), (2, 2)])  # type: ignore[attr-defined]
    inbox.fill([np.arange(3, dtype=np.int32), np.eye(2, dtype=np.int32)])
    assert [tensor.tolist() for tensor in inbox.tensors] == [[0, 1, 2], [[1, 0], [0, 1]]]
    with pytest.raises(ValueError, match="other shapes"):
        inbox.fill([np.arange(4, dtype=np.int32), np.eye(2, dtype=np.int32)])
