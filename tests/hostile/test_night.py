"""The runner of cases, the soak's figures, and spoilt models: what is done is what is said.

Knows: chaos/. Does not know: how a server is built.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from chaos import night
from chaos.case import Case, Failed, Skipped, check, soon
from chaos.cases_checkpoints import SPOILT
from chaos.healthy import Streams
from chaos.places import BUNDLED, WEIGHTS, fill, header_of, large_model, with_header
from chaos.served import DidNotStart, Served, children, footprint, is_alive
from chaos.soak import KINDS, Sample, report, slope
from quire.errors import QuireError
from quire.model_spec import read_model_spec
from quire.weights.checkpoint import Checkpoint


def case(problem: Exception | None, waits_for: str | None = None) -> Case:
    def run() -> str:
        if problem is not None:
            raise problem
        return "all is well"

    return Case("one", "nothing", run, waits_for)


@pytest.mark.parametrize(
    ("problem", "waits_for", "verdict"),
    [
        (None, None, "met"),
        (None, "a thing", "met"),
        (Failed("it broke"), None, "FAILED"),
        (Failed("it broke"), "a thing", "not yet"),
        (Skipped("no rights"), None, "skipped"),
        (DidNotStart("exit code 1"), None, "FAILED"),
        (OSError("no"), None, "FAILED"),
    ],
)
def test_verdicts(problem: Exception | None, waits_for: str | None, verdict: str) -> None:
    found = night.judge(case(problem, waits_for))
    assert found.verdict == verdict
    assert str(problem or "all is well").split(":")[0] in found.seen


def test_a_case_that_does_not_end_is_ended() -> None:
    endless = Case("endless", "", lambda: str(soon(lambda: False, 60.0, "never")))
    begin = time.monotonic()
    assert night.judge(endless, most_s=1).seen == "no end after 1 s"
    assert time.monotonic() - begin < 30


def test_the_exit_code_is_that_of_the_worst(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["night"])
    for cases, code in (
        ((case(None),), 0),
        ((case(None), case(Failed("x"))), 1),
        ((case(Failed("x"), "y"),), 0),
        ((), 1),
    ):
        monkeypatch.setattr(night, "CASES", cases)
        assert night.main() == code
    assert "1 met, 0 not yet, 0 skipped, 1 FAILED" in capsys.readouterr().out


def test_names_are_different_and_everything_is_said() -> None:
    names = [each.name for each in night.CASES]
    assert len(set(names)) == len(names) > 40
    assert all(each.must and each.run.__module__.startswith("chaos.") for each in night.CASES)


def test_checks() -> None:
    check(True, "no")
    with pytest.raises(Failed, match="so"):
        check([], "so")
    assert soon(lambda: "x", 1.0, "")[0] == "x"
    with pytest.raises(Failed, match="not within 0 s"):
        soon(lambda: None, 0.0, "it")


def test_slopes_are_of_the_middle() -> None:
    assert slope([(x, 3.0 * x + 1) for x in range(20)]) == pytest.approx(3.0)
    assert slope([(x, 5.0 + (100.0 if x == 7 else 0.0)) for x in range(2000)]) == 0.0
    assert slope([(1.0, 1.0)]) == slope([]) == 0.0


def samples(grow: float) -> list[Sample]:
    return [
        Sample(float(x), {"engine.resident_bytes": 10**8 + grow * x, "front.num_descriptors": 20}) for x in range(60)
    ]


def test_what_grows_and_what_is_kept_is_told() -> None:
    streams, found = Streams(0, (), 0), Counter({"whole 200": 5})
    good = report(samples(100.0), Sample(61.0, {"front.num_descriptors": 20, "kv_blocks_used": 0}), found, [], streams)
    assert all(good["promises"].values())
    assert good["slopes_a_minute"]["engine.resident_bytes"] == pytest.approx(6000.0)
    bad = report(
        samples(10**6), Sample(61.0, {"front.num_descriptors": 40, "kv_blocks_used": 2}), found, ["x: 500"], streams
    )
    assert list(bad["promises"].values()) == [False, False, False, True, False]


def test_every_kind_of_load_can_be_made() -> None:
    from random import Random

    assert len({make(Random(1)).kind for make in KINDS}) == len(KINDS)


def test_processes_are_told_apart() -> None:
    import os

    me = os.getpid()
    assert is_alive(me)
    assert not is_alive(None)
    assert not is_alive(2**22 + 1)
    assert me in children(os.getppid()) or os.getppid() in (0, 1)
    held = footprint(me)
    assert held is not None
    assert held.num_descriptors > 2
    assert footprint(None) is None
    assert Served.__doc__


@pytest.mark.parametrize(("name", "spoil"), [(name, spoil) for name, spoil, _ in SPOILT])
def test_every_spoilt_model_differs_from_the_bundled_one(name: str, spoil: object, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    assert callable(spoil)
    spoil(folder)
    before = {path.name: path.read_bytes() for path in BUNDLED.iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} != before


def test_a_large_model_is_a_whole_one(tmp_path: Path) -> None:
    large_model(tmp_path / "large", 30 * 2**20)
    checkpoint = Checkpoint.open(tmp_path / "large")
    assert checkpoint.num_bytes > 30 * 2**20
    assert read_model_spec(tmp_path / "large").vocab_size > read_model_spec(BUNDLED).vocab_size


def test_headers_and_tensors_are_changed_where_they_are_said_to_be(tmp_path: Path) -> None:
    import shutil

    path = tmp_path / WEIGHTS
    shutil.copy(BUNDLED / WEIGHTS, path)
    name = fill(path, "down_proj", b"\xc0\x7f")
    header, start = header_of(path)
    begin, end = header[name]["data_offsets"]
    assert set(path.read_bytes()[start + begin : start + end]) == {0xC0, 0x7F}
    with_header(path, lambda changed: changed[name].update(dtype="X"))
    with pytest.raises(QuireError, match="unknown number format"):
        Checkpoint.open(tmp_path)
