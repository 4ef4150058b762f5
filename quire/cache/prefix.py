"""Knows: which block holds which full block of tokens after which prefix. Does not know: who owns blocks, or text.

A block is named by everything before it, so that equal names mean equal K and V:

    root = H(salt, block size)      name 0 = H(root, tokens 0..B)      name 1 = H(name 0, tokens B..2B)      ...

H is SHA-256 over typed, length-prefixed fields: no two different lists of fields have the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence as SequenceOf
from hashlib import sha256

from quire.errors import InternalError

FORMAT = b"quire prefix chain 1"
DIGEST_BYTES = 32


class Chain:
    """The names of one sequence's full blocks, as far as anyone has asked: each is computed once."""

    __slots__ = ("names", "root")

    def __init__(self, root: bytes, names: list[bytes]) -> None:
        self.root = root
        self.names = names

    def copy(self) -> Chain:
        """A chain that goes its own way from here."""
        return Chain(self.root, self.names.copy())


class PrefixIndex:
    """Published blocks by name. The first publisher of a name wins; later ones keep their blocks to themselves."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._layout = struct.Struct(f"<4sI{DIGEST_BYTES}s4sI{block_size}I")
        self._block_of: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._name_of)

    def __contains__(self, block: int) -> bool:
        return block in self._name_of

    def start(self, salt: str) -> Chain:
        """The chain of a new sequence; sequences share blocks only under the same salt."""
        secret = salt.encode("utf-8", "surrogatepass")
        return Chain(sha256(FORMAT + struct.pack("<4sII", b"salt", self.block_size, len(secret)) + secret).digest(), [])

    def match(self, tokens: SequenceOf[int], chain: Chain) -> list[int]:
        """Blocks of the longest published prefix of `tokens`; the last token is always left to compute."""
        hits: list[int] = []
        find = self._block_of.get
        for number in range((len(tokens) - 1) // self.block_size):
            block = find(self._name(tokens, chain, number))
            if block is None:
                break
            hits.append(block)
        return hits

    def publish(self, tokens: SequenceOf[int], chain: Chain, number: int, block: int) -> bool:
        """Let others find `block`, which holds full block `number` of `tokens`; False if they find another one."""
        name = self._name(tokens, chain, number)
        if name in self._block_of:
            return False
        if block in self._name_of:
            raise InternalError("a published block was published as something else", got=block)
        self._block_of[name] = block
        self._name_of[block] = name
        return True

    def forget(self, block: int) -> None:
        """The content of `block` is gone; blocks nobody published are nothing to forget."""
        name = self._name_of.pop(block, None)
        if name is not None:
            del self._block_of[name]

    def _name(self, tokens: SequenceOf[int], chain: Chain, number: int) -> bytes:
        names = chain.names
        if number < len(names):
            return names[number]
        size, pack = self.block_size, self._layout.pack
        parent = names[-1] if names else chain.root
        for start in range(len(names) * size, (number + 1) * size, size):
            fields = pack(b"prnt", DIGEST_BYTES, parent, b"toks", size, *tokens[start : start + size])
            parent = sha256(fields).digest()
            names.append(parent)
        return parent
