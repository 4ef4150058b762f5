"""What keys share and what they do not, by what comes from the cache. Knows: HTTP. Does not know: names of blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from served import Served, served

from quire.errors import InvalidSetting
from quire.server.public import PublicPrefixes
from quire.server.public_files import describe, read_public
from quire.settings import ServerSettings, check
from quire.tenancy.keys import Key, hash_of

SYSTEM = "You are a careful librarian who answers in short sentences and always names the shelf. " * 6
SECRET = "My account number is 4711 and nobody else may ever learn about it, please. " * 6


@contextmanager
def tenants(tmp_path: Path, name: str = "system.json", text: str | None = None) -> Iterator[Served]:
    keys, public = tmp_path / "keys.toml", tmp_path / name
    keys.write_text(Key("alice", hash_of("a-key")).as_toml() + Key("bob", hash_of("b-key")).as_toml())
    public.write_text(json.dumps({"messages": [{"role": "system", "content": SYSTEM}]}) if text is None else text)
    with served(api_keys=str(keys), api_key="plain", public_prefix=(str(public),)) as server:
        told = read_public(server.service, server.service.settings.public_prefix)
        object.__setattr__(server.service, "public", told)
        yield server


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Served]:
    with tenants(tmp_path) as server:
        yield server


def cached(server: Served, key: str, user: str = SECRET, system: str = SYSTEM, **body: Any) -> int:
    """Tokens of a chat's prompt that came from the cache."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    answer = server.post(
        "/v1/chat/completions", {"messages": messages, "max_tokens": 2, **body}, authorization=f"Bearer {key}"
    )
    assert answer.status == 200, answer.body
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def shared(server: Served) -> int:
    (prefix,) = server.service.public.prefixes
    size = server.plan.block_size
    assert len(prefix) > 3 * size
    return len(prefix) // size * size


def test_a_declared_prefix_is_shared_and_what_follows_is_not(shop: Served) -> None:
    whole = shared(shop)
    assert cached(shop, "a-key") == 0
    assert cached(shop, "a-key") > whole, "within a key everything is found again"
    assert cached(shop, "b-key") == whole
    assert cached(shop, "b-key") > whole
    assert cached(shop, "plain") == whole


def test_what_is_not_declared_is_found_by_its_own_key_only(shop: Served) -> None:
    other = "You are somebody else, with rules that no customer of ours has agreed to be told. " * 6
    assert cached(shop, "a-key", system=other) == 0
    assert cached(shop, "a-key", system=other) > 0
    assert cached(shop, "b-key", system=other) == 0
    assert cached(shop, "plain", system=other) == 0
    assert cached(shop, "b-key", system=other) > 0


def test_a_salt_of_one_s_own_shares_nothing(shop: Served) -> None:
    cached(shop, "a-key")
    assert cached(shop, "a-key", cache_salt="x") == 0
    assert cached(shop, "a-key", cache_salt="x") > shared(shop)
    assert cached(shop, "b-key", cache_salt="x") == 0


def test_user_is_no_tenant_of_the_cache(shop: Served) -> None:
    """Whoever holds a key can write any `user`: it separates nothing, and it opens nothing."""
    cached(shop, "a-key")
    assert _cached_as(shop, "a-key", "zoe") > shared(shop)
    assert _cached_as(shop, "b-key", "zoe") == shared(shop)


def _cached_as(server: Served, key: str, name: str) -> int:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": SECRET}]
    body = {"messages": messages, "max_tokens": 2, "user": name}
    usage = server.post("/v1/chat/completions", body, x_api_key=key).json()["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.parametrize("body", [{"n": 3, "temperature": 1.0, "seed": 1}, {"use_beam_search": True, "n": 2}])
def test_samples_and_beams_keep_to_it(shop: Served, body: dict[str, Any]) -> None:
    for key in ("a-key", "b-key"):
        first = cached(shop, key, **body)
        assert first == (0 if key == "a-key" else shared(shop))
        assert cached(shop, key, **body) > shared(shop)


def test_answers_stay_what_they_were(shop: Served) -> None:
    def text(key: str) -> str:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": SECRET}]
        body = {"messages": messages, "max_tokens": 20, "seed": 3, "temperature": 1.0}
        return str(shop.post("/v1/chat/completions", body, x_api_key=key).json()["choices"][0]["message"]["content"])

    assert len({text(key) for key in ("a-key", "a-key", "b-key", "plain", "b-key")}) == 1


def test_a_text_is_the_beginning_of_a_completion(tmp_path: Path) -> None:
    with tenants(tmp_path, "preamble.txt", SYSTEM) as server:

        def count(key: str) -> int:
            answer = server.post("/v1/completions", {"prompt": SYSTEM + SECRET, "max_tokens": 1}, x_api_key=key)
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert count("a-key") == 0
        assert 0 < count("b-key") <= shared(server)
        shown = server.post("/v1/completions/render", {"prompt": SYSTEM + SECRET}, x_api_key="b-key").json()
        assert shared(server) <= shown["num_public_tokens"] <= len(server.service.public.prefixes[0])


def test_the_operator_is_told_what_is_shared(shop: Served, tmp_path: Path) -> None:
    (line,) = describe(shop.service)
    assert f"{shared(shop)} of {len(shop.service.public.prefixes[0])} tokens" in line
    with tenants(tmp_path, "short.txt", "Hi") as server:
        assert "so nothing" in describe(server.service)[0]


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("none.txt", None, "No such file"),
        ("empty.txt", lambda path: path.write_text(""), "no tokens"),
        ("latin.txt", lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
        ("large.txt", lambda path: path.write_bytes(b"x" * (2**22 + 1)), "larger than"),
        ("broken.json", lambda path: path.write_text("{"), "not valid JSON"),
        ("list.json", lambda path: path.write_text("[]"), "not a JSON object"),
        ("typo.json", lambda path: path.write_text('{"mesages": []}'), "mesages"),
        ("role.json", lambda path: path.write_text('{"messages": [{"role": "x", "content": ""}]}'), "role"),
    ],
)
def test_a_file_that_is_no_beginning_is_refused(
    rambler: Served, tmp_path: Path, name: str, write: Callable[[Path], object] | None, why: str
) -> None:
    if write is not None:
        write(tmp_path / name)
    with pytest.raises(InvalidSetting, match=why) as caught:
        read_public(rambler.service, (str(tmp_path / name),))
    assert name in caught.value.message
    assert "--public-prefix" in caught.value.message


def test_without_tenants_there_is_nothing_to_declare() -> None:
    with pytest.raises(InvalidSetting, match="--api-keys"):
        check(ServerSettings(public_prefix=("x",)))
    check(replace(ServerSettings(public_prefix=("x",)), api_keys="f"))


def test_what_a_prompt_has_in_common_with_the_nearest_prefix_is_public() -> None:
    public = PublicPrefixes(((1, 2, 3, 4), (1, 9), (5,)))
    for prompt, count in (((1, 2, 3, 4, 5), 4), ((1, 2, 3), 3), ((1, 2, 4), 2), ((1, 9, 3), 2), ((5, 1), 1), ((7,), 0)):
        assert public.num_tokens(prompt) == count
    assert PublicPrefixes().num_tokens((1,)) == 0
