"""`user`, `priority` and `service_tier` at the door. Knows: bodies. Does not know: what a policy makes of them."""

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


@pytest.mark.parametrize(("asked", "told"), [("flex", "flex"), ("default", "default"), ("auto", "default")])
def test_a_service_tier_is_served_and_told(
    rambler: Served, monkeypatch: pytest.MonkeyPatch, asked: str, told: str
) -> None:
    _, (request,) = heard(rambler, monkeypatch, service_tier=asked)
    assert request.flex == (asked == "flex")
    assert rambler.complete(max_tokens=2, service_tier=asked).json()["service_tier"] == told
    assert rambler.chat(max_tokens=2, service_tier=asked).json()["service_tier"] == told
    chunks = rambler.chat(max_tokens=2, service_tier=asked, stream=True).events()[:-1]
    assert {chunk["service_tier"] for chunk in chunks} == {told}


def test_without_a_service_tier_none_is_told(rambler: Served) -> None:
    assert "service_tier" not in rambler.complete(max_tokens=2).json()


@pytest.mark.parametrize("tier", ["priority", "scale", "", 1])
def test_another_service_tier_is_refused_with_those_there_are(rambler: Served, tier: object) -> None:
    answer = rambler.post("/v1/completions", {**ASK, "service_tier": tier})
    assert (answer.status, answer.error["param"]) == (400, "service_tier")
    assert all(name in answer.error["message"] for name in ("auto", "default", "flex"))
