"""Messages as bytes: length (u32, little endian), kind (u8), body (MessagePack of that kind's fields, typed).

Knows: the fixed table of kinds. Does not know: pipes, or what a message means.

Nothing that can execute is ever decoded: a body is parsed into the one dataclass its kind names, or refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from quire import errors
from quire.engine.messages import (
    Abort,
    Failed,
    FromEngine,
    FromGrammars,
    KeepGrammars,
    Loading,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Start,
    StepReport,
    Submit,
    ToEngine,
    ToGrammars,
)
from quire.errors import InternalError, QuireError
from quire.events import Examined
from quire.structured.order import Masked, MaskOrder

Message = ToEngine | FromEngine | ToGrammars | FromGrammars
KINDS: tuple[type, ...] = (
    *(Start, Submit, Abort, Loading, Ready, Failed, Refused, StepReport, Prepare, Prepared),
    *(KeepGrammars, MaskOrder, Masked, Examined),
)
MAX_FRAME_BYTES = 2**28
_HEADER = struct.Struct("<IB")
# Text that is no UTF-8 is a plain ValueError; what a dataclass finds wrong with its values is one of ours or Python's.
UNREADABLE = (msgspec.MsgspecError, QuireError, ValueError, TypeError, OverflowError, RecursionError)


def encode(message: Message) -> bytes:
    """One frame."""
    body = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(body), KINDS.index(type(message))) + body


class Decoder:
    """Bytes in, in any pieces; whole messages out. A frame that does not fit the table raises `InternalError`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoders: list[msgspec.msgpack.Decoder[Any]] = [msgspec.msgpack.Decoder(kind) for kind in KINDS]

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield every message that is complete with `data`."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            num_bytes, kind = _HEADER.unpack_from(self._buffer)
            if num_bytes > MAX_FRAME_BYTES or kind >= len(KINDS):
                raise InternalError("a frame on the engine's pipe is not ours", got=f"kind {kind}, {num_bytes} bytes")
            end = _HEADER.size + num_bytes
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield self._decode(kind, body)

    def _decode(self, kind: int, body: bytes) -> Message:
        try:
            message: Message = self._decoders[kind].decode(body)
        except UNREADABLE as problem:
            raise InternalError(f"a {KINDS[kind].__name__} on the engine's pipe cannot be read") from problem
        return message


def rebuild(kind: str, message: str, param: str | None = None) -> QuireError:
    """Our error class of that name, with its message as it was worded on the other side."""
    found = getattr(errors, kind, InternalError)
    if not (isinstance(found, type) and issubclass(found, QuireError)):
        found = InternalError
    return found(message, param=param)
