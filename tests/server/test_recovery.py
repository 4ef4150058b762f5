"""What is told of a lost engine, and what health says of one that is not there: no engine is needed for either."""

from __future__ import annotations

import io

from served import served

from quire.events import EngineLoss
from quire.observe import log
from quire.observe.metrics import Metrics
from quire.server.recovery import tell_of_recall, telling

LOST = EngineLoss("exited", "killed by SIGABRT", num_suspects=4)
FOUND = EngineLoss("exited", "killed by SIGABRT", num_suspects=1, culprit="cmpl-7-0")
MENDED = EngineLoss("exited", "killed by SIGABRT", num_suspects=4, num_replayed=3, seconds=1.5)
GIVEN_UP = EngineLoss("exited", "exit code 1", is_final=True, remedy="Restore /m, and start again")


def test_each_loss_is_one_line_and_each_recovery_another() -> None:
    stream = io.StringIO()
    log.set_up("info", stream)
    tell = telling(Metrics())
    for loss in (LOST, FOUND, MENDED, GIVEN_UP):
        tell(loss)
    tell_of_recall(3)
    lines = [line.split("Z ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        'error engine lost cause=exited how="killed by SIGABRT" suspects=4',
        'error engine lost cause=exited how="killed by SIGABRT" suspects=1 killed_by=cmpl-7-0',
        'warning engine replaced cause=exited how="killed by SIGABRT" suspects=4 replayed=3 seconds=1.5000',
        'critical engine given up, requests are refused cause=exited how="exit code 1" '
        'remedy="Restore /m, and start again"',
        "warning grammar process lost, its answers go on with another requests=3",
    ]


def test_losses_are_counted_once_each() -> None:
    metrics = Metrics()
    for loss in (LOST, FOUND, MENDED, GIVEN_UP):
        metrics.on_loss(loss)
    text = metrics.render().decode()
    for line in (
        'quire_engine_losses_total{cause="exited"} 2.0',
        "quire_requests_replayed_total 3.0",
        "quire_requests_killed_engine_total 1.0",
        "quire_engine_recovery_seconds_sum 1.5",
        "quire_engine_recovery_seconds_count 1.0",
    ):
        assert line in text


def test_health_says_why_it_is_bad() -> None:
    with served() as server:
        server.client.ailment = "the canary sings another song"
        for path in ("/readyz", "/health"):
            answer = server.get(path)
            assert (answer.status, answer.error["code"]) == (503, "engine_dead")
            assert answer.error["message"] == "not ready: the canary sings another song."
        assert server.get("/livez").status == server.get("/startupz").status == 200
        server.client.ailment = None
        assert server.get("/readyz").json() == {"status": "ok"}
        server.service.lifecycle.drain()
        assert server.get("/readyz").error["code"] == "shutting_down"
