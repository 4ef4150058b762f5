"""`user` and `priority` at the door. Knows: bodies. Does not know: what a policy makes of them."""

from __future__ import annotations

import pytest
from served import Served, served

from quire.request import Request
from quire.settings import EngineSettings

ASK = {"prompt": "Hi", "max_tokens": 1}


def heard(server: Served, monkeypatch: pytest.MonkeyPatch, **body: object) -> tuple[int, list[Request]]:
    requests: list[Request] = []
    add = server.engine.scheduler.add

    def listen(request: Request, now: float) -> None:
        requests.append(request)
        add(request, now)

    monkeypatch.setattr(server.engine.scheduler, "add", listen)
    return server.post("/v1/completions", {**ASK, **body}).status, requests


def test_a_user_is_a_tenant(rambler: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    status, (request,) = heard(rambler, monkeypatch, user="someone", priority=-3)
    assert (status, request.tenant, request.priority, request.weight) == (200, "someone", -3, 1.0)


def test_without_a_user_all_are_one_tenant(rambler: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (request,) = heard(rambler, monkeypatch, user=None)
    assert (request.tenant, request.priority) == ("", 0)


def test_a_priority_that_would_do_nothing_is_refused() -> None:
    with served(engine=EngineSettings(max_model_len=64, scheduling_policy="fcfs")) as server:
        answer = server.post("/v1/completions", {**ASK, "priority": 1})
        assert (answer.status, answer.error["param"]) == (400, "priority")
        assert "--scheduling-policy fcfs" in answer.error["message"]
        assert server.post("/v1/completions", {**ASK, "priority": 0, "user": "someone"}).status == 200
