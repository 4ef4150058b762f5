"""TLS: the certificate, its key, and whose certificates clients need; refused at start where they do not fit together.

Knows: PEM files, TLS 1.2 and later. Does not know: sockets, who connects, what is said.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from quire.errors import InvalidSetting

CERTIFICATE, KEY, CLIENT_CA = "--tls-certificate", "--tls-key", "--tls-client-ca"
SOON = timedelta(days=14)
MAX_FILE_BYTES = 2**20
TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime and GeneralizedTime, X.690


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files lie. `client_ca`: only clients with a certificate of one of these authorities come in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Tls:
    """A context for new connections; `reload` takes in files that have changed, for the connections after it."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.context = _context(files)

    def reload(self) -> None:
        """Read certificate and key again. If they cannot be used, `InvalidSetting`, and all stays as it was.

        Authorities of clients are read at start only: a context can be given more of them, but none can be taken away.
        """
        _context(self.files)
        self.context.load_cert_chain(self.files.certificate, self.files.key, _no_password)

    def warnings(self, now: datetime) -> list[str]:
        """What a person should know of the certificate. `now` has a time zone."""
        end = ends_at(self.files.certificate)
        if end is None or end - now > SOON:
            return []
        days = (end - now).days
        what = "is over" if end <= now else f"ends in {days} day{'s' * (days != 1)}"
        return [f"the certificate {what}: {self.files.certificate} is valid until {end:%Y-%m-%d %H:%M} UTC"]


def tls_files(certificate: str | None, key: str | None, client_ca: str | None) -> TlsFiles | None:
    """The options together; None without any. The key may stand in the certificate's file."""
    if certificate is None:
        for option, value in ((KEY, key), (CLIENT_CA, client_ca)):
            if value is not None:
                raise InvalidSetting(f"{option} means nothing without {CERTIFICATE}", got=value, param=option)
        return None
    ca = None if client_ca is None else Path(client_ca)
    return TlsFiles(Path(certificate), Path(key or certificate), ca)


def ends_at(certificate: Path) -> datetime | None:
    """When the first certificate of a PEM file ends (RFC 5280, 4.1.2.5); None where it cannot be told."""
    try:
        text = certificate.read_text(encoding="ascii", errors="replace")
        start = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", start) + len("-----END CERTIFICATE-----")
        (_, whole), *_ = _parts(ssl.PEM_cert_to_DER_cert(text[start:end]))
        (_, body), *_ = _parts(whole)
        fields = [part for part in _parts(body) if part[0] != 0xA0]  # without the version, which may be absent
        kind, last = list(_parts(fields[3][1]))[1]
        return datetime.strptime(last.decode("ascii"), TIMES[kind]).replace(tzinfo=UTC)
    except (OSError, ValueError, LookupError):
        return None


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER element in `data`. Raises `ValueError` for lengths that lead outside."""
    place = 0
    while place < len(data):
        if place + 2 > len(data):
            raise ValueError("a DER element is cut short")
        tag, size, place = data[place], data[place + 1], place + 2
        if size & 0x80:
            num_bytes = size & 0x7F
            size, place = int.from_bytes(data[place : place + num_bytes], "big"), place + num_bytes
        if place + size > len(data):
            raise ValueError("a DER element is cut short")
        yield tag, data[place : place + size]
        place += size


def _context(files: TlsFiles) -> ssl.SSLContext:
    for option, path in ((CERTIFICATE, files.certificate), (KEY, files.key), (CLIENT_CA, files.client_ca)):
        if path is not None:
            _check_file(option, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, _no_password)
    except ssl.SSLError as problem:
        _refuse_pair(files, problem)
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError:
            raise InvalidSetting(f"{CLIENT_CA} holds no certificate", got=files.client_ca, allowed="PEM") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_file(option: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            size = len(file.read(MAX_FILE_BYTES + 1))
    except OSError as problem:
        raise InvalidSetting(
            f"{option} cannot be read", got=f"{path}: {problem.strerror}", allowed="a PEM file", param=option
        ) from None
    if not 0 < size <= MAX_FILE_BYTES:
        raise InvalidSetting(
            f"{option} is no PEM file", got=f"{path}: {size} bytes", allowed=f"up to {MAX_FILE_BYTES}", param=option
        )


def _refuse_pair(files: TlsFiles, problem: ssl.SSLError) -> NoReturn:
    """OpenSSL tells a pair that does not match from what it cannot read, but not which file that is."""
    if problem.reason == "KEY_VALUES_MISMATCH":
        raise InvalidSetting(
            f"{KEY} is not the key of {CERTIFICATE}", got=f"{files.key} and {files.certificate}", param=KEY
        ) from None
    raise InvalidSetting(
        f"{CERTIFICATE} and {KEY} cannot be used",
        got=f"{files.certificate} and {files.key}: {problem.reason or 'not understood'}",
        allowed="PEM: the certificate first, then its chain; a key without a password",
        param=CERTIFICATE,
    ) from None


def _no_password() -> str:
    """Instead of OpenSSL's question at a terminal, which a server may not have."""
    raise InvalidSetting(
        f"{KEY} has a password", allowed="a key without one", hint="openssl pkey -in KEY -out PLAIN", param=KEY
    )
