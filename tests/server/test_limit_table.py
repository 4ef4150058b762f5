"""Every row of the limits is held: L passes, L + 1 is refused as the row says, 1000 L is refused at little cost."""

from __future__ import annotations

import ast
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from limit_probes import PROBES, Body, Call, Elsewhere, File, Nested, Value
from served import MAX_MODEL_LEN, Answer, Served, exchange, served

import quire
from quire import limits
from quire.errors import QuireError
from quire.limits import Limit, table
from quire.settings import EngineSettings, ServerSettings

TESTS = Path(__file__).parents[1]
NUM_SEQS = 16
MOST_CPU_S = 2.0
MOST_BYTES = 16 * ServerSettings().max_body_bytes
ROWS = {row.name: row for row in table(ServerSettings(), MAX_MODEL_LEN - 1, NUM_SEQS)}  # one token is the answer's
OVER_HTTP = [name for name, probe in PROBES.items() if isinstance(probe, (Body, Value, Nested))]
CALLED = [name for name, probe in PROBES.items() if isinstance(probe, Call)]
FILES = [name for name, probe in PROBES.items() if isinstance(probe, File)]
OTHERS = [name for name, probe in PROBES.items() if isinstance(probe, Elsewhere)]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    engine = EngineSettings(max_model_len=MAX_MODEL_LEN, max_num_seqs=NUM_SEQS, max_num_batched_tokens=128)
    with served(engine=engine) as running:
        yield running


def test_every_row_has_a_probe_and_no_probe_is_left_over() -> None:
    assert ROWS.keys() == PROBES.keys()
    assert len({row.name for row in table()}) == len(table())


def test_every_number_of_the_module_stands_in_a_row() -> None:
    shown = {row.value for row in table(max_num_seqs=10**6)} | {None}
    numbers = {name: value for name, value in vars(limits).items() if name.isupper()}
    missing = {name for name, value in numbers.items() if value not in shown}
    assert missing <= {"BODIES_AT_ONCE"}


@pytest.mark.parametrize("row", table(), ids=lambda row: row.name)
def test_a_row_names_who_checks_it_and_an_option_that_exists(row: Limit) -> None:
    assert (Path(quire.__file__).parent / row.checked).is_file()
    if row.option is not None:
        assert row.option in {*ServerSettings.__dataclass_fields__, *EngineSettings.__dataclass_fields__}
    assert row.status is not None or row.note, "whoever is not told needs to read it"


def ask(server: Served, name: str, num: int) -> Answer:
    probe = PROBES[name]
    assert isinstance(probe, (Body, Value, Nested))
    data, num_bytes = probe.made(num, server.service.settings.max_body_bytes)
    headers = {"content-type": "application/json", "content-length": str(num_bytes)}
    return server.do(exchange(server.app, "POST", probe.path, [data], headers))


def says(answer: Answer, row: Limit) -> bool:
    """Whether it is refused for this limit: its status and code, and the bound in the message."""
    if answer.status != row.status:
        return False
    error = answer.error
    return f"{row.value:.15g}" in error["message"] and (row.code is None or error["code"] == row.code)


def bound(name: str) -> int:
    value = ROWS[name].value
    assert value is not None
    return int(value)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_request_at_the_limit_is_not_refused_for_it(server: Served, name: str) -> None:
    if name == "model_tokens":
        assert ask(server, name, bound(name)).status == 200
        return
    answer = ask(server, name, bound(name))
    assert answer.status in (200, 400), answer.body
    if answer.status == 400:
        assert not says(answer, ROWS[name]), answer.body  # what else is wrong with it may be said


@pytest.mark.parametrize("name", OVER_HTTP)
def test_one_more_is_refused_by_name(server: Served, name: str) -> None:
    row = ROWS[name]
    answer = ask(server, name, bound(name) + 1)
    if name == "model_tokens":  # its message counts the answer's token too
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert str(MAX_MODEL_LEN) in answer.error["message"]
        return
    assert says(answer, row), answer.body[:400]


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_thousand_times_as_much_is_refused_at_little_cost(server: Served, name: str) -> None:
    probe = PROBES[name]
    assert isinstance(probe, (Body, Value, Nested))
    data, num_bytes = probe.made(1000 * bound(name), server.service.settings.max_body_bytes)
    headers = {"content-type": "application/json", "content-length": str(num_bytes)}
    start = time.process_time()
    answer = server.do(exchange(server.app, "POST", probe.path, [data], headers))
    assert time.process_time() - start < MOST_CPU_S
    assert 400 <= answer.status < 500, answer.body[:400]
    assert len(answer.body) < 2000
    tracemalloc.start()
    try:
        server.do(exchange(server.app, "POST", probe.path, [data], headers))
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert server.is_idle()


@pytest.mark.parametrize("name", CALLED)
def test_a_call_holds_its_limit(name: str) -> None:
    probe, row = PROBES[name], next(row for row in table() if row.name == name)
    assert isinstance(probe, Call)
    assert row.value is not None
    most = int(row.value)
    probe.ask(most)
    for num in (most + 1, 1000 * most):
        start = time.process_time()
        with pytest.raises(QuireError) as refused:
            probe.ask(num)
        assert time.process_time() - start < MOST_CPU_S
        assert refused.value.status == row.status
        assert row.code is None or refused.value.code == row.code
        assert str(most) in refused.value.message or num > most + 1, "far over it another limit may be met first"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_looked_at_before_it_is_read(name: str, tmp_path: Path) -> None:
    probe, most = PROBES[name], bound(name)
    assert isinstance(probe, File)
    for num in (most, most + 1, 1000 * most):
        if num > probe.most:
            continue
        probe.write(tmp_path / "file", num)
        start = time.process_time()
        try:
            probe.read(tmp_path / "file")
            message = ""
        except QuireError as problem:
            message = problem.message
        assert (str(most) in message) == (num > most), message
        assert num < 1000 * most or time.process_time() - start < MOST_CPU_S


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_held_elsewhere_is(name: str) -> None:
    probe = PROBES[name]
    assert isinstance(probe, Elsewhere)
    tree = ast.parse((TESTS / probe.file).read_text(encoding="utf-8"))
    assert probe.test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_command_prints_what_is_in_effect(capsys: pytest.CaptureFixture[str]) -> None:
    from quire.cli.limits import show

    engine, settings = EngineSettings(max_model_len=100, max_num_seqs=3), ServerSettings(max_waiting=7)
    show(None, None, engine, settings, as_json=True)
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["limits"]}
    assert [found[name]["value"] for name in ("model_tokens", "n", "requests_inside")] == [100, 3, 10]
    assert found["requests_inside"]["option"] == "--max-waiting"
    show(None, None, engine, settings, as_json=False)
    text = capsys.readouterr().out
    assert text.count("\n") == len(found) + 1
    assert all(name in text for name in found)
