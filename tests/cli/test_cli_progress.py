"""The loading bar: for people, and only where there is something to wait for."""

from __future__ import annotations

import pytest

from quire.cli.progress import WORTH_A_BAR_BYTES, LoadingBar


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int, terminal: bool) -> str:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    bar = LoadingBar()
    for done in (0, total // 2, total):
        bar.show(done, total)
    bar.close()
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_large_model_shows_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "loading" in shown(monkeypatch, capsys, WORTH_A_BAR_BYTES, True)


@pytest.mark.parametrize(("total", "terminal"), [(WORTH_A_BAR_BYTES, False), (WORTH_A_BAR_BYTES - 1, True), (0, True)])
def test_pipes_and_small_models_stay_quiet(
    total: int, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(monkeypatch, capsys, total, terminal) == ""
