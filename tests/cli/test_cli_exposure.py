"""Which addresses need a lock. Knows: sockets of this machine. Does not know: HTTP."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quire.cli.exposure import check_exposure, is_local, warnings
from quire.errors import InvalidSetting
from quire.settings import ServerSettings, check


def bound_to(name: object, family: int = socket.AF_INET) -> Any:
    return cast(Any, SimpleNamespace(family=family, getsockname=lambda: name))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_alone(host: str) -> None:
    listener = bound_to((host, 80))
    assert is_local(listener)
    check_exposure(listener, ServerSettings())
    assert warnings(listener, ServerSettings()) == []


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "169.254.1.1", "fe80::1%eth0", "::ffff:10.0.0.1", "odd"]
)
def test_every_other_address_needs_a_lock_or_a_word(host: str) -> None:
    listener = bound_to((host, 80))
    with pytest.raises(InvalidSetting) as caught:
        check_exposure(listener, ServerSettings())
    for word in (host, "--api-key", "--allow-unauthenticated", "quire keys new"):
        assert word in caught.value.message
    for locks in ({"api_key": "k"}, {"api_keys": "f"}, {"tls_certificate": "c", "tls_client_ca": "a"}):
        check_exposure(listener, ServerSettings(**locks))
    open_ = ServerSettings(allow_unauthenticated=True)
    check_exposure(listener, open_)
    assert "--allow-unauthenticated" in warnings(listener, open_)[0]
    assert "--tls-certificate" in warnings(listener, ServerSettings(api_key="k"))[0]
    assert warnings(listener, ServerSettings(api_key="k", tls_certificate="c")) == []


def test_a_certificate_alone_asks_nobody_who_he_is() -> None:
    with pytest.raises(InvalidSetting):
        check_exposure(bound_to(("0.0.0.0", 80)), ServerSettings(tls_certificate="c"))


def test_real_sockets(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert is_local(listener)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert not is_local(listener)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert is_local(listener)


@pytest.mark.parametrize("key", ["", " ", " k", "k\n", "a\tb", "a\x00b"])
def test_a_key_that_would_open_to_everyone_or_nobody_is_refused(key: str) -> None:
    with pytest.raises(InvalidSetting, match="--api-key is empty or not plain"):
        check(ServerSettings(api_key=key))
