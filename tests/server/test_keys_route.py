"""Tenants by their keys over HTTP. Knows: a file of two keys. Does not know: how fairness is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Answer, Served, served

from quire.request import Request
from quire.tenancy.keys import Key, hash_of

ASK = {"prompt": "Hi", "max_tokens": 1}
PLAIN = "single-key"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Served]:
    path = tmp_path / "keys.toml"
    keys = (Key("alice", hash_of("a-key"), 2.0, 5000.0, -5), Key("bob", hash_of("b-key")))
    path.write_text("\n".join(key.as_toml() for key in keys))
    with served(api_keys=str(path), api_key=PLAIN) as server:
        yield server


def heard(server: Served, monkeypatch: pytest.MonkeyPatch, key: str, **body: object) -> tuple[Answer, list[Request]]:
    requests: list[Request] = []
    add = server.engine.scheduler.add

    def listen(request: Request, now: float) -> None:
        requests.append(request)
        add(request, now)

    monkeypatch.setattr(server.engine.scheduler, "add", listen)
    answer = server.post("/v1/completions", {**ASK, **body}, authorization=f"Bearer {key}")
    monkeypatch.undo()
    return answer, requests


def test_only_known_keys_come_in(locked: Served) -> None:
    for key in ("wrong", "", "alice", hash_of("a-key"), "a-key "):
        assert locked.get("/v1/models", authorization=f"Bearer {key}").status == (200 if key == "a-key " else 401)
    assert locked.get("/v1/models").status == 401
    assert locked.get("/v1/models", x_api_key="b-key").status == 200
    assert locked.get("/v1/models", x_api_key=PLAIN).status == 200
    assert locked.get("/health").status == 200


def test_the_key_is_the_tenant_whatever_user_says(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (mine,) = heard(locked, monkeypatch, "a-key", user="bob", priority=-5)
    assert (mine.tenant, mine.weight, mine.priority) == ("key:alice", 2.0, -5)
    assert mine.deadline_s is not None
    _, (theirs,) = heard(locked, monkeypatch, "b-key")
    assert (theirs.tenant, theirs.weight, theirs.deadline_s) == ("key:bob", 1.0, None)
    _, (plain,) = heard(locked, monkeypatch, PLAIN, user="key:alice")
    assert plain.tenant == "user:key:alice", "nobody takes another's name"


def test_a_header_goes_before_the_key_s_own_deadline(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Request] = []
    add = locked.engine.scheduler.add
    monkeypatch.setattr(locked.engine.scheduler, "add", lambda request, now: (given.append(request), add(request, now)))
    for headers in ({}, {"x_quire_deadline_ms": "60000"}):
        locked.post("/v1/completions", ASK, authorization="Bearer a-key", **headers)
    first, second = (request.deadline_s for request in given)
    assert first is not None
    assert second is not None
    assert 50 < second - first < 60


def test_no_key_may_ask_to_be_served_sooner_than_it_may(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, requests = heard(locked, monkeypatch, "b-key", priority=-1)
    assert (answer.status, answer.error["param"], requests) == (400, "priority", [])
    assert "0 to 100" in answer.error["message"]
    assert heard(locked, monkeypatch, "b-key", priority=3)[0].status == 200
    assert heard(locked, monkeypatch, "a-key", priority=-6)[0].status == 400
    assert heard(locked, monkeypatch, PLAIN, priority=-100)[0].status == 200


def test_tenants_do_not_find_each_other_s_prefixes(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    salts = [
        heard(locked, monkeypatch, key, **body)[1][0].cache_salt
        for key, body in (
            ("a-key", {}), ("b-key", {}), (PLAIN, {}), ("a-key", {"cache_salt": "x"}), (PLAIN, {"cache_salt": "x"}),
            (PLAIN, {"cache_salt": "9:key:alice"}), ("b-key", {"cache_salt": "9:key:alice"}),
        )
    ]  # fmt: skip
    assert len(set(salts)) == len(salts)
    assert heard(locked, monkeypatch, "a-key", user="z")[1][0].cache_salt == salts[0]


def test_keys_come_and_go_while_it_serves(locked: Served) -> None:
    ring = locked.service.keys
    assert ring is not None
    ring.path.write_text(Key("carol", hash_of("c-key")).as_toml())
    assert locked.get("/v1/models", authorization="Bearer a-key").status == 200
    ring.reload()
    assert locked.get("/v1/models", authorization="Bearer a-key").status == 401
    assert locked.get("/v1/models", authorization="Bearer c-key").status == 200
