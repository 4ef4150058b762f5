"""Whose prefix cache it is, as bytes that say nothing else: the salt under which blocks are named.

Derived from the key's hash, not from the owner's name: a name that changes hands finds nothing of its former owner.

Knows: typed fields. Does not know: requests, blocks, who is asked.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

FORMAT = b"quire cache salt 1"


def cache_salt(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """SHA-256 over (four-letter type, value) fields, each with its length: different lists never have equal bytes.

    No fields are no salt: then everyone is one tenant.
    """
    if not fields:
        return b""
    parts = [struct.pack("<4sI", kind, len(value)) + value for kind, value in fields]
    return hashlib.sha256(FORMAT + struct.pack("<I", len(parts)) + b"".join(parts)).digest()
