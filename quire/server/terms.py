"""On what terms a request is served: whose it is, how soon it may ask to be, and until when its first token is of use.

Knows: the key that let it in, and its headers. Does not know: bodies, queues, the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.types import Scope

from quire.errors import RequestError
from quire.request import MAX_DEADLINE_MS, MAX_PRIORITY
from quire.tenancy.cache_salt import cache_salt
from quire.tenancy.keys import Key

DEADLINE_HEADER = "x-quire-deadline-ms"
SCOPE_KEY = "quire.key"
_MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Terms:
    """`key` is None where the server knows no names. `deadline_s` is on the server's steady clock."""

    key: Key | None = None
    named: bool = False
    deadline_s: float | None = None

    @property
    def weight(self) -> float:
        """Share beside other tenants."""
        return 1.0 if self.key is None else self.key.weight

    def most_inside(self, default: int) -> int | None:
        """Requests that the key may have under way at once; None for no bound, and where keys have no names."""
        if self.key is None:
            return None
        return self.key.max_concurrent or default or None

    @property
    def least_priority(self) -> int:
        """The soonest that it may ask for."""
        return -MAX_PRIORITY if self.key is None else self.key.priority

    def tenant(self, user: str | None) -> str:
        """Who is to be served fairly beside others: the key's owner, or the user that the request names."""
        if self.key is not None:
            return f"key:{self.key.name}"
        return f"user:{user or ''}" if self.named else user or ""

    def salt(self, asked: str | None) -> bytes:
        """What separates prefix caches: each key has its own, whatever it asks for."""
        fields = [] if asked is None else [(b"askd", asked.encode("utf-8"))]
        if self.key is not None:
            fields.append((b"keyh", bytes.fromhex(self.key.sha256)))
        elif self.named:
            fields.append((b"none", b""))
        return cache_salt(fields)

    def may_share(self, asked: str | None) -> bool:
        """True if blocks that the operator declares public may be found too: not by who asks for a salt of his own."""
        return self.named and asked is None


def terms_of(scope: Scope, arrived_s: float, named: bool) -> Terms:
    """The terms of the request in `scope`, which came at `arrived_s`; `named` where keys have names.

    Raises `RequestError` for a deadline that cannot be meant.
    """
    key: Key | None = scope.get(SCOPE_KEY)
    deadline_ms = _asked_ms(scope)
    if deadline_ms is None and key is not None:
        deadline_ms = key.deadline_ms
    return Terms(key, named, None if deadline_ms is None else arrived_s + deadline_ms / 1000)


def _asked_ms(scope: Scope) -> float | None:
    found = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == DEADLINE_HEADER.encode()]
    if not found:
        return None
    if len(found) > 1 or not _MILLISECONDS.fullmatch(found[0]) or not 1 <= float(found[0]) <= MAX_DEADLINE_MS:
        raise RequestError(
            f"{DEADLINE_HEADER} is not a time",
            got=", ".join(found) or "nothing",
            allowed=f"1 to {MAX_DEADLINE_MS} milliseconds, once",
            hint="It says within how many milliseconds the first token is of use.",
            param=DEADLINE_HEADER,
        )
    return float(found[0])
