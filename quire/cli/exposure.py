"""Who can reach the server, and whether anything asks who they are.

Knows: addresses, and which options let strangers in. Does not know: how keys are checked.
"""

from __future__ import annotations

import ipaddress
import socket

from quire.errors import InvalidSetting
from quire.settings import ServerSettings

OPTION = "--allow-unauthenticated"
LOCKS = "--api-key, --api-keys or --tls-client-ca; or a loopback address, such as 127.0.0.1"


def check_exposure(listener: socket.socket, settings: ServerSettings) -> None:
    """Refuse a socket that other machines reach, where nothing asks them for a key and nobody said so."""
    if is_local(listener) or has_lock(settings) or settings.allow_unauthenticated:
        return
    raise InvalidSetting(
        "other machines would reach this server, and nothing asks who they are",
        got=f"{host_of(listener)} without a key",
        allowed=LOCKS,
        hint=f"`quire keys new NAME` draws a key. Where something else keeps strangers out: {OPTION}.",
        param=OPTION,
    )


def warnings(listener: socket.socket, settings: ServerSettings) -> list[str]:
    """What the operator chose, said once more."""
    if is_local(listener):
        return []
    host = host_of(listener)
    if not has_lock(settings):
        return [f"{host} lets every machine that reaches this one use the model ({OPTION})"]
    if settings.tls_certificate is None:
        return [f"keys and texts cross the network as they are: {host} has no --tls-certificate"]
    return []


def has_lock(settings: ServerSettings) -> bool:
    """True if only those come in who show something: a key, or a certificate."""
    return any((settings.api_key, settings.api_keys, settings.tls_client_ca))


def host_of(listener: socket.socket) -> str:
    """The address that `listener` is bound to; a path for a socket of the file system."""
    name = listener.getsockname()
    return str(name[0]) if isinstance(name, tuple) else str(name)


def is_local(listener: socket.socket) -> bool:
    """True if only this machine reaches `listener`. An address that is not understood is not local."""
    if listener.family == socket.AF_UNIX:
        return True
    try:
        address = ipaddress.ip_address(host_of(listener).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
