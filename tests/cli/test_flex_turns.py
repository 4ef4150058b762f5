"""What `benchmarks/flex.py` makes of times. Knows: made-up outcomes. Does not know: servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from quire.cli.bench.http_client import Outcome


@pytest.fixture
def flex(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    sys.modules.pop("flex", None)
    import flex

    return flex


def online(due: float, chunks: list[float]) -> Outcome:
    return Outcome(due, sent_s=due, chunk_s=chunks, end_s=chunks[-1])


def whole(sent: float, end: float, num_tokens: int) -> Outcome:
    return Outcome(0.0, sent_s=sent, end_s=end, num_output_tokens=num_tokens)


def test_only_the_window_counts(flex: Any) -> None:
    turn = flex.Turn(1.0, 11.0, [online(0.5, [1.5, 2.0]), online(5.0, [5.1, 5.3, 11.5])], [whole(0.0, 2.0, 100)])
    assert turn.ttft_s == pytest.approx([0.1])
    assert turn.gaps_s == pytest.approx([0.2, 6.2])
    assert turn.online_rate == pytest.approx(4 / 10)
    assert turn.batch_rate == pytest.approx(50 / 10), "half of its time lies in the window"


def test_idle_is_when_nobody_online_waits(flex: Any) -> None:
    turn = flex.Turn(0.0, 10.0, [online(1.0, [2.0, 3.0]), online(2.0, [4.0]), online(3.0, [3.5]), online(8.0, [12.0])])
    assert turn.idle_share == pytest.approx(1.0 - (3.0 + 2.0) / 10)


def test_the_verdicts(flex: Any) -> None:
    def turns(slower: float, batch: int) -> Any:
        users = [online(at, [at + 0.1 * slower, at + 0.2 * slower]) for at in range(10)]
        return [flex.Turn(0.0, 10.0, users, [whole(0.0, 10.0, batch)])]

    found = flex.report(turns(1.0, 1000), turns(1.0, 0), turns(1.04, 780))
    assert found["idle_share"] == pytest.approx(0.8)
    assert found["flex_share_of_idle"]["by_time"] == pytest.approx(780 / 800)
    missed = [name for name, met in found["met"].items() if not met]
    assert missed == ["flex_share_of_idle_by_tokens"]
    assert not flex.report(turns(1.0, 1000), turns(1.0, 0), turns(1.06, 780))["met"]["ttft_p99"]
    assert "MISSED" in flex.tell(found)
