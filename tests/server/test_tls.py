"""TLS: what is refused at start, who can talk, what a changed file brings. Knows: certificates made here."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from certificates import made, self_signed
from served import Served, wait_until

from quire.errors import InvalidSetting
from quire.server.serve import uvicorn_config
from quire.server.tls import Tls, TlsFiles, ends_at, tls_files

ASK = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@contextmanager
def listening(server: Served, tls: Tls) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn_config(server.app, drain_s=1, tls=tls.context))
    task = asyncio.run_coroutine_threadsafe(web._serve([listener]), server.loop)
    wait_until(lambda: web.started)
    try:
        yield listener.getsockname()[1]
    finally:
        web.should_exit = web.force_exit = True
        task.result(20)


def ask(port: int, trusted: Path, own: tuple[Path, Path] | None = None, newest: str = "TLSv1_3") -> tuple[bytes, str]:
    """What /health answers and the name in the certificate; whatever goes wrong is raised."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.maximum_version = ssl.TLSVersion[newest]
    if own is not None:
        context.load_cert_chain(*own)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        subject = dict(entry[0] for entry in sock.getpeercert()["subject"])  # type: ignore[index]
        sock.sendall(ASK)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts), subject["commonName"]


def test_it_is_spoken_and_a_changed_file_is_taken_for_new_connections(rambler: Served, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "first")
    tls = Tls(TlsFiles(certificate, key))
    with listening(rambler, tls) as port:
        answer, name = ask(port, certificate)
        assert answer.startswith(b"HTTP/1.1 200")
        assert name == "first"
        assert ask(port, certificate, newest="TLSv1_2")[1] == "first"
        other, other_key = self_signed(tmp_path, "second")
        certificate.write_bytes(other.read_bytes())
        with pytest.raises(InvalidSetting, match="not the key"):
            tls.reload()
        key.write_bytes(other_key.read_bytes())
        tls.reload()
        assert ask(port, other)[1] == "second"


def test_what_does_not_speak_it_gets_nothing(rambler: Served, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "it")
    with (
        listening(rambler, Tls(TlsFiles(certificate, key))) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
    ):
        sock.sendall(ASK)
        assert b"200" not in sock.recv(65536)
    assert Tls(TlsFiles(certificate, key)).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_authority_of_clients_keeps_all_others_out(rambler: Served, tmp_path: Path) -> None:
    server, friend, stranger = (self_signed(tmp_path, name) for name in ("server", "friend", "stranger"))
    with listening(rambler, Tls(TlsFiles(*server, client_ca=friend[0]))) as port:
        assert ask(port, server[0], friend)[0].startswith(b"HTTP/1.1 200")
        for own in (None, stranger):
            heard = b""
            with suppress(ssl.SSLError, ConnectionError):
                heard, _ = ask(port, server[0], own)
            assert heard == b""


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "it")
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    files = tls_files(str(both), None, None)
    assert files is not None
    Tls(files)


def test_what_cannot_be_used_is_said_at_start(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "it")
    _, foreign = self_signed(tmp_path, "foreign")
    locked, junk, empty = tmp_path / "locked.key", tmp_path / "junk.pem", tmp_path / "empty.pem"
    made("pkey", "-in", str(key), "-aes128", "-passout", "pass:secret", "-out", str(locked))
    junk.write_text("no certificate")
    empty.write_text("")
    for files, words in (
        (TlsFiles(certificate, foreign), "--tls-key is not the key of --tls-certificate"),
        (TlsFiles(certificate, locked), "--tls-key has a password"),
        (TlsFiles(certificate, tmp_path / "none.key"), "--tls-key cannot be read.*No such file"),
        (TlsFiles(tmp_path, key), "--tls-certificate cannot be read.*directory"),
        (TlsFiles(empty, key), "--tls-certificate is no PEM file"),
        (TlsFiles(junk, key), "cannot be used"),
        (TlsFiles(certificate, junk), "cannot be used"),
        (TlsFiles(certificate, key, junk), "--tls-client-ca holds no certificate"),
    ):
        with pytest.raises(InvalidSetting, match=words) as caught:
            Tls(files)
        assert "secret" not in caught.value.message
    for given in ((None, "k", None), (None, None, "c")):
        with pytest.raises(InvalidSetting, match="means nothing without --tls-certificate"):
            tls_files(*given)


@pytest.mark.parametrize("days", [1, 10, 400, 36500])
def test_an_end_is_seen_coming(tmp_path: Path, days: int) -> None:
    certificate, key = self_signed(tmp_path, "it", days)
    now = datetime.now(UTC)
    end = ends_at(certificate)
    assert end is not None
    assert abs(end - now - timedelta(days=days)) < timedelta(hours=1)
    tls = Tls(TlsFiles(certificate, key))
    assert bool(tls.warnings(now)) == (days < 14)
    assert "is over" in tls.warnings(end + timedelta(seconds=1))[0]


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_damaged_certificate_has_no_end_or_its_own(tmp_path: Path, cut: int) -> None:
    lines = (
        "MIIBfTCCASOgAwIBAgIUM4iPnJ2mKMc5CkVxUX8LMRrGx1cwCgYIKoZIzj0EAwIw\n"
        "FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI0MDEwMTAwMDAwMFoXDTM0MDEwMTAw\n"
    )
    path = tmp_path / "cut.pem"
    path.write_text(f"-----BEGIN CERTIFICATE-----\n{lines[:cut]}\n-----END CERTIFICATE-----\n")
    assert ends_at(path) is None
