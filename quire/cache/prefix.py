"""Knows: which block holds which full block of tokens after which prefix. Does not know: who owns blocks, or text.

A block is named by everything before it, so that equal names mean equal K and V, and by who may find it:

    private   root = H(salt, block size)    name 0 = H(root, tokens 0..B)    name 1 = H(name 0, tokens B..2B)    ...
    public    root = H(public, block size)  name 0, ... name p-1             name p = H(H(name p-1, private root), ...)

What is declared public may be found under every salt; from the first block on that is not, a name holds the salt, and
everything public before it. H is SHA-256 over typed, length-prefixed fields: no two different lists of fields have the
same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from hashlib import sha256

from quire.errors import InternalError

FORMAT = b"quire prefix chain 2"
DIGEST_BYTES = 32
TURN = f"<4sI{DIGEST_BYTES}s4sI{DIGEST_BYTES}s"


class Chain:
    """The names of one sequence's full blocks, as far as anyone has asked: each is computed once.

    Its first `num_public` blocks are named so that everyone finds them, the others by `private_root`.
    """

    __slots__ = ("names", "num_public", "private_root", "root")

    def __init__(self, root: bytes, names: list[bytes], num_public: int = 0, private_root: bytes = b"") -> None:
        self.root = root
        self.names = names
        self.num_public = num_public
        self.private_root = private_root

    def copy(self) -> Chain:
        """A chain that goes its own way from here."""
        return Chain(self.root, self.names.copy(), self.num_public, self.private_root)


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

    def start(self, salt: bytes, num_public_tokens: int = 0) -> Chain:
        """The chain of a new sequence. Sequences share blocks only under the same salt, but for the full blocks of
        their first `num_public_tokens`, which whoever has the same tokens there shares."""
        private = sha256(FORMAT + struct.pack("<4sII", b"salt", self.block_size, len(salt)) + salt).digest()
        num_public = num_public_tokens // self.block_size
        if not num_public:
            return Chain(private, [])
        public = sha256(FORMAT + struct.pack("<4sII", b"publ", self.block_size, 0)).digest()
        return Chain(public, [], num_public, private)

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

    def likely(self, tokens: SequenceOf[int], chain: Chain) -> int:
        """About how many blocks `match` would find, from few looks: as many where prefixes lost nothing but ends."""
        names, known = chain.names, self._block_of
        if names and names[0] not in known:
            return 0
        last = (len(tokens) - 1) // self.block_size
        low, high = 0, 1  # the first `low` are found, the first `high` are not
        while high <= last and self._name(tokens, chain, high - 1) in known:
            low, high = high, 2 * high
        high = min(high, last + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if self._name(tokens, chain, middle - 1) in known:
                low = middle
            else:
                high = middle
        return low

    def first_name(self, tokens: SequenceOf[int], chain: Chain) -> bytes:
        """The name of the first block, which `tokens` fill."""
        return chain.names[0] if chain.names else self._name(tokens, chain, 0)

    def is_new(self, names: Iterable[bytes]) -> bool:
        """Whether nothing is published under any of `names`."""
        return self._block_of.keys().isdisjoint(names)

    def publish(self, tokens: SequenceOf[int], chain: Chain, number: int, blocks: SequenceOf[int]) -> list[int]:
        """Let others find `blocks`, which hold `tokens` from full block `number` on; those that they find, and not
        another one of the same name."""
        block_of, name_of, names, found = self._block_of, self._name_of, chain.names, []
        self._name(tokens, chain, number + len(blocks) - 1)
        for place, block in enumerate(blocks, number):
            name = names[place]
            if name in block_of:
                continue
            if block in name_of:
                raise InternalError("a published block was published as something else", got=block)
            block_of[name] = block
            name_of[block] = name
            found.append(block)
        return found

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
        turn = chain.num_public * size or -1
        for start in range(len(names) * size, (number + 1) * size, size):
            if start == turn:
                turning = struct.pack(TURN, b"prnt", DIGEST_BYTES, parent, b"turn", DIGEST_BYTES, chain.private_root)
                parent = sha256(turning).digest()
            fields = pack(b"prnt", DIGEST_BYTES, parent, b"toks", size, *tokens[start : start + size])
            parent = sha256(fields).digest()
            names.append(parent)
        return parent
