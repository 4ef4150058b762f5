"""Knows: how often each KV block is owned and in what order idle ones are reused. Does not know: tokens or arrays.

    owners > 0                        owners == 0: one list, reused from the front
    |---- used ----|   |---- free: nothing to lose ----|---- cached: least recently released first ----|

A cached block keeps its content, and may be shared again, until it is taken for something else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from quire.errors import InternalError


class BlockPool:
    """`num_blocks` blocks named 0, 1, ...; every operation is O(1), and misuse raises `InternalError`."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_cached = 0
        self._owners = [0] * num_blocks
        self._kept = bytearray(num_blocks)
        self._idle: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_idle(self) -> int:
        """Blocks that can be taken: free and cached."""
        return len(self._idle)

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns and whose content nobody wants."""
        return len(self._idle) - self.num_cached

    @property
    def num_used(self) -> int:
        """Blocks with an owner; shared ones count once."""
        return self.num_blocks - len(self._idle)

    def num_owners(self, block: int) -> int:
        """How many sequences hold `block`."""
        return self._owners[block]

    def take(self) -> int:
        """Own the idle block that is missed least. Its content is lost: tell whoever remembers it."""
        if not self._idle:
            raise InternalError("no KV block is idle", got=f"{self.num_blocks} used", allowed="at most all of them")
        block, _ = self._idle.popitem(last=False)
        if self._kept[block]:
            self._kept[block] = 0
            self.num_cached -= 1
        self._owners[block] = 1
        return block

    def take_many(self, count: int) -> list[int]:
        """`count` times `take`, in its order: a prompt takes hundreds at once."""
        if count > len(self._idle):
            raise InternalError("too few KV blocks are idle", got=len(self._idle), allowed=f"{count} or more")
        idle, kept, owners = self._idle, self._kept, self._owners
        taken = [idle.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            if kept[block]:
                kept[block] = 0
                self.num_cached -= 1
            owners[block] = 1
        return taken

    def share(self, block: int) -> None:
        """Own `block` too. An idle one must be cached, and leaves the list with its content."""
        if self._owners[block] == 0:
            if not self._kept[block]:
                raise InternalError("a block without content was shared", got=block)
            del self._idle[block]
            self.num_cached -= 1
        self._owners[block] += 1

    def release(self, block: int) -> bool:
        """Own `block` no more; True if nobody does now."""
        return self.release_many((block,))[0]

    def release_many(self, blocks: Sequence[int]) -> list[bool]:
        """`release` of each of `blocks`, in their order: a sequence that ends lets go of hundreds at once."""
        idle, kept, owners = self._idle, self._kept, self._owners
        freed = []
        for block in blocks:
            num_owners = owners[block] - 1
            if num_owners < 0:
                raise InternalError("a block was released that nobody owns", got=block)
            owners[block] = num_owners
            freed.append(not num_owners)
            if num_owners:
                continue
            idle[block] = None
            if kept[block]:
                self.num_cached += 1
            else:
                idle.move_to_end(block, last=False)
        return freed

    def keep(self, blocks: Iterable[int]) -> None:
        """Mark the content of owned blocks as worth keeping: once idle they are cached, not free."""
        owners, kept = self._owners, self._kept
        for block in blocks:
            if owners[block] < 1:
                raise InternalError("a block was kept that nobody owns", got=block)
            kept[block] = 1

    def discard(self, block: int) -> None:
        """Undo `keep` for an owned block whose content turned out to be bad."""
        if self._owners[block] < 1:
            raise InternalError("a block was discarded that nobody owns", got=block)
        self._kept[block] = 0

    def drop_cached(self) -> list[int]:
        """Turn every cached block into a free one; the blocks whose content is lost, for whoever remembers it."""
        dropped = [block for block in self._idle if self._kept[block]]
        for block in dropped:
            self._kept[block] = 0
            self._idle.move_to_end(block, last=False)
        self.num_cached = 0
        return dropped

    def is_kept(self, block: int) -> bool:
        """True while the content of `block` is remembered."""
        return bool(self._kept[block])

    def check(self) -> None:
        """Raise `InternalError` unless every block is either owned or idle, never both, and all counts agree."""
        for block, owners in enumerate(self._owners):
            if owners < 0 or (owners == 0) != (block in self._idle):
                raise InternalError("a block is neither owned nor idle, or both", got=f"block {block}, {owners} owners")
        num_cached = sum(self._kept[block] for block in self._idle)
        if num_cached != self.num_cached or len(self._idle) > self.num_blocks:
            raise InternalError("cached blocks are miscounted", got=self.num_cached, allowed=num_cached)
        if self.num_used + self.num_cached + self.num_free != self.num_blocks:
            raise InternalError("blocks are not conserved", got=self.num_used, allowed=self.num_blocks)
