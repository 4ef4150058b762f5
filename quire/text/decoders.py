"""The decoder steps of tokenizer.json in a form that takes one token at a time.

    Replace -> ByteFallback -> Fuse -> Strip     SentencePiece models (Llama 2, Mistral, Gemma)
    ByteLevel                                    byte-level BPE (GPT-2, Llama 3, Qwen)
    Metaspace | nothing                          older SentencePiece conversions | bare vocabularies

Law: for any pieces, the text fed through `DecoderChain` plus `flush()` is what the tokenizers library's own decoder
makes of all pieces at once, and what was returned is never taken back.

Knows: token strings ("pieces") and how they become text. Does not know: ids, special tokens, prompts.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from quire.errors import UnsupportedModel

REPLACEMENT = "\ufffd"
MAX_UNFINISHED_BYTES = 3  # of a UTF-8 character
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Step(Protocol):
    """One step: pieces in, pieces out, some kept back until later pieces decide them."""

    def feed(self, piece: str) -> list[str]:
        """The pieces that are certain once `piece` is known."""
        ...

    def flush(self) -> list[str]:
        """What was kept back, as it reads when nothing follows."""
        ...

    def settle(self) -> None:
        """Forget what earlier pieces would still change; keep only the bytes of an unfinished character."""
        ...


class ReplaceStep:
    """Replaces a string inside each piece."""

    def __init__(self, pattern: str, content: str) -> None:
        self.pattern, self.content = pattern, content

    def feed(self, piece: str) -> list[str]:
        return [piece.replace(self.pattern, self.content)]

    def flush(self) -> list[str]:
        return []

    def settle(self) -> None:
        """Nothing is kept back."""


class ByteFallbackStep:
    """Joins runs of `<0xHH>` pieces: valid UTF-8 becomes its text, otherwise every byte of the run becomes U+FFFD.

    That is the library's rule, and it looks at the run as a whole: while a run is valid it must be kept back to its
    end, since one later bad byte would turn all of it into U+FFFD. A run known to be bad is passed on at once.
    """

    def __init__(self) -> None:
        self.run = bytearray()
        self.bad = False
        self.decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def feed(self, piece: str) -> list[str]:
        match = BYTE_PIECE.fullmatch(piece)
        if match is None:
            return [*self.flush(), piece] if self.run else [piece]
        byte = bytes((int(match[1], 16),))
        self.run += byte
        if self.bad:
            del self.run[:-MAX_UNFINISHED_BYTES]
            return [REPLACEMENT]
        try:
            self.decoder.decode(byte)
        except UnicodeDecodeError:
            self.bad = True
            return [REPLACEMENT] * len(self.run)
        return []

    def flush(self) -> list[str]:
        run, bad = bytes(self.run), self.bad
        unfinished = self.decoder.getstate()[0]
        self._restart(b"")
        if bad or not run:
            return []
        return [REPLACEMENT] * len(run) if unfinished else [run.decode("utf-8")]

    def settle(self) -> None:
        self._restart(_unfinished_character(bytes(self.run)))

    def _restart(self, run: bytes) -> None:
        self.run, self.bad = bytearray(run), False
        self.decoder.reset()
        self.decoder.decode(run)


class ByteLevelStep:
    """Maps the byte-level alphabet back to bytes and decodes UTF-8, bad sequences as U+FFFD (one per maximal part)."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: str) -> list[str]:
        return [self.decoder.decode(byte_level_bytes(piece))]

    def flush(self) -> list[str]:
        return [self.decoder.decode(b"", True)]

    def settle(self) -> None:
        """The decoder already holds nothing but an unfinished character."""


class StripPieceStep:
    """Drops up to `count` leading characters of each piece."""

    def __init__(self, content: str, count: int) -> None:
        self.content, self.count = content, count

    def feed(self, piece: str) -> list[str]:
        return [piece[_num_leading(piece, self.content, self.count) :]]

    def flush(self) -> list[str]:
        return []

    def settle(self) -> None:
        """Nothing is kept back."""


class StripStartStep:
    """Drops up to `count` leading characters of the whole text (a Strip that follows Fuse)."""

    def __init__(self, content: str, count: int) -> None:
        self.content, self.left = content, count

    def feed(self, piece: str) -> list[str]:
        if not self.left or not piece:
            return [piece]
        cut = _num_leading(piece, self.content, self.left)
        self.left = self.left - cut if cut == len(piece) else 0
        return [piece[cut:]]

    def flush(self) -> list[str]:
        return []

    def settle(self) -> None:
        """Nothing is kept back."""


class MetaspaceStep:
    """Turns the word mark into a space; in the first piece it vanishes unless the scheme is `never`."""

    def __init__(self, mark: str, drop_first: bool) -> None:
        self.mark, self.first = mark, drop_first

    def feed(self, piece: str) -> list[str]:
        space = "" if self.first else " "
        self.first = False
        return [piece.replace(self.mark, space)]

    def flush(self) -> list[str]:
        return []

    def settle(self) -> None:
        """Nothing is kept back."""


class SpacedStep:
    """Pieces joined by single spaces: what the library does when tokenizer.json has no decoder."""

    def __init__(self) -> None:
        self.first = True

    def feed(self, piece: str) -> list[str]:
        out = piece if self.first else " " + piece
        self.first = False
        return [out]

    def flush(self) -> list[str]:
        return []

    def settle(self) -> None:
        """Nothing is kept back."""


class ReplaceTextStep:
    """`str.replace` over the whole text, keeping back only an ending that may begin the pattern."""

    def __init__(self, pattern: str, content: str) -> None:
        self.pattern, self.content, self.held = pattern, content, ""

    def feed(self, piece: str) -> list[str]:
        *before, rest = (self.held + piece).split(self.pattern)
        keep = min(len(rest), len(self.pattern) - 1)
        while keep and not rest.endswith(self.pattern[:keep]):
            keep -= 1
        self.held = rest[len(rest) - keep :]
        return [self.content.join([*before, rest[: len(rest) - keep]])]

    def flush(self) -> list[str]:
        out, self.held = [self.held], ""
        return out

    def settle(self) -> None:
        self.held = ""


class DecoderChain:
    """The steps one after another; text comes out as soon as no later piece can change it."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    def feed(self, piece: str) -> str:
        """The text that became certain with this piece ("" while a character or a run is unfinished)."""
        pieces = [piece]
        for step in self.steps:
            pieces = [out for part in pieces for out in step.feed(part)]
        return "".join(pieces)

    def flush(self) -> str:
        """The rest of the text, as it reads when no piece follows."""
        pieces: list[str] = []
        for step in self.steps:
            pieces = [out for part in pieces for out in step.feed(part)] + step.flush()
        return "".join(pieces)

    def settle(self) -> None:
        """Count everything fed so far as said, except the bytes of an unfinished character."""
        for step in self.steps:
            step.settle()


def build_chain(spec: Mapping[str, Any] | None, clean_up: bool = False) -> DecoderChain:
    """Fresh steps for the decoder object of tokenizer.json (None: no decoder), then the clean-up of spaces.

    UnsupportedModel names a step that has no one-token-at-a-time form here.
    """
    steps: list[Step] = []
    fused = False
    for part in _flatten(spec):
        if part["type"] == "Fuse":
            fused = True
            continue
        steps.append(_step(part, fused))
        fused = fused or part["type"] == "ByteLevel"
    if spec is None:
        steps.append(SpacedStep())
    if clean_up:
        steps.extend(ReplaceTextStep(old, new) for old, new in CLEAN_UP)
    return DecoderChain(steps)


def piece_bytes(piece: str, spec: Mapping[str, Any] | None) -> bytes:
    """The bytes of one piece in the middle of a text; half a character stays half a character."""
    for part in _flatten(spec):
        match = BYTE_PIECE.fullmatch(piece) if part["type"] == "ByteFallback" else None
        if part["type"] == "ByteLevel":
            return byte_level_bytes(piece)
        if match is not None:
            return bytes((int(match[1], 16),))
        if part["type"] == "Replace":
            piece = piece.replace(part["pattern"]["String"], part["content"])
        elif part["type"] == "Metaspace":
            piece = piece.replace(part["replacement"], " ")
    return piece.encode("utf-8")


def byte_level_bytes(piece: str) -> bytes:
    """Bytes of a byte-level piece; a piece with a character outside that alphabet stands for itself."""
    try:
        return bytes([_BYTE_OF[character] for character in piece])
    except KeyError:
        return piece.encode("utf-8")


def _byte_level_alphabet() -> dict[str, int]:
    """Character to byte, as GPT-2 defined it: printable Latin-1 stands for itself, the other 68 bytes for U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF: Mapping[str, int] = _byte_level_alphabet()


def _flatten(spec: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if spec is None:
        return []
    return [leaf for part in spec["decoders"] for leaf in _flatten(part)] if spec["type"] == "Sequence" else [spec]


def _step(part: Mapping[str, Any], fused: bool) -> Step:
    match part["type"]:
        case "ByteLevel" if not fused:
            return ByteLevelStep()
        case "ByteFallback" if not fused:
            return ByteFallbackStep()
        case "Replace" if part["pattern"].get("String"):
            made = ReplaceTextStep if fused else ReplaceStep
            return made(part["pattern"]["String"], part["content"])
        case "Strip" if part["stop"] == 0:
            return (StripStartStep if fused else StripPieceStep)(part["content"], part["start"])
        case "Metaspace" if not fused:
            return MetaspaceStep(part["replacement"], part.get("prepend_scheme", "always") != "never")
    raise UnsupportedModel(
        "tokenizer.json has a decoder step that cannot be streamed",
        got=part,
        allowed="ByteLevel, Replace (of a string), ByteFallback, Fuse, Strip (at the start), Metaspace",
    )


def _num_leading(piece: str, content: str, limit: int) -> int:
    num = 0
    while num < min(limit, len(piece)) and piece[num] == content:
        num += 1
    return num


def _unfinished_character(data: bytes) -> bytes:
    """The bytes at the end of `data` that begin a character and do not finish it (UTF-8 shows it in the last three)."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-MAX_UNFINISHED_BYTES:])
    return decoder.getstate()[0]
