"""The socket that a server listens on: its own, or one that somebody else has opened and handed down.

Knows: addresses, descriptors, systemd's LISTEN_FDS. Does not know: who is served on it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from quire.errors import InvalidSetting

FIRST_FD = 3  # where systemd's sockets begin
ALLOWED = "a bound TCP socket"


def open_listener(host: str, port: int, fd: int | None) -> tuple[socket.socket, bool]:
    """The socket of `--listen-fd`, else the one that systemd handed down, else a new one; whether it was inherited.

    Raises `InvalidSetting` where it cannot be had.
    """
    inherited = handed_down(os.environ, os.getpid()) if fd is None else fd
    return (bind(host, port), False) if inherited is None else (adopt(inherited), True)


def handed_down(environ: Mapping[str, str], pid: int) -> int | None:
    """The descriptor of systemd's socket activation (sd_listen_fds(3)); None if there is none for this process."""
    if environ.get("LISTEN_PID") != str(pid):
        return None
    number = environ.get("LISTEN_FDS", "")
    if number != "1":
        raise InvalidSetting("LISTEN_FDS does not say one socket", got=number, allowed="1")
    return FIRST_FD


def adopt(fd: int) -> socket.socket:
    """An inherited socket; what this process starts does not inherit it in turn."""
    try:
        listener = socket.socket(fileno=fd)
    except OSError as problem:
        raise InvalidSetting(
            "the descriptor to listen on is no socket", got=f"{fd}: {problem.strerror}", allowed=ALLOWED
        ) from problem
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        listener.detach()
        raise InvalidSetting("the descriptor to listen on is another kind of socket", got=fd, allowed=ALLOWED)
    if not listener.getsockname()[1]:
        listener.detach()
        raise InvalidSetting("the socket to listen on has no address yet", got=fd, allowed=ALLOWED)
    os.set_inheritable(fd, False)
    return listener


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: an address that cannot be had is refused before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except PermissionError as problem:
        listener.close()
        raise InvalidSetting("--port needs rights that this user lacks", got=port, allowed="1024 or more") from problem
    except (socket.gaierror, UnicodeError) as problem:
        listener.close()
        raise InvalidSetting("--host is not an address of this machine", got=host, hint="Try 127.0.0.1.") from problem
    except OSError as problem:
        listener.close()
        raise InvalidSetting(
            f"cannot listen on {host}:{port}", got=problem.strerror, hint="Choose another --port, or 0 for a free one."
        ) from problem
    return listener
