"""Knows: how sequences come to hold blocks, share them, copy before writing, and let go. Does not know: who runs.

one prompt, two samples, B = 4:     sample 0   |a b c d|e f . .|      the second block has two owners:
                                    sample 1   |a b c d|e f . .|      the first to write takes a copy
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from quire.cache.blocks import BlockPool
from quire.cache.prefix import Chain, PrefixIndex
from quire.errors import InternalError
from quire.scheduling.accounts import Account
from quire.scheduling.seat import Seat

NO_NAME = b""  # of what is never published


class Holdings:
    """The only place where a sequence's blocks change hands. `num_filled` slots of used blocks hold a token."""

    def __init__(self, pool: BlockPool, prefix: PrefixIndex | None, block_size: int) -> None:
        if prefix is not None and prefix.block_size != block_size:
            raise InternalError("pool and prefix index differ in block size", got=prefix.block_size, allowed=block_size)
        self.pool = pool
        self.prefix = prefix
        self.block_size = block_size
        self.num_filled = 0

    def num_missing(self, seat: Seat, end: int) -> int:
        """Blocks that `seat` must take before it can write up to position `end`."""
        missing = -(-end // self.block_size) - len(seat.blocks)
        return missing + 1 if self.is_shared(seat) else missing

    def num_freed(self, seat: Seat) -> int:
        """Blocks that nobody would hold if `seat` let go, and its company with it.

        Shared ones come first: a prefix, or its siblings' prompt.
        """
        if seat.company:
            return self.num_only_of(seat.company, [])
        num_shared = 0
        for block in seat.blocks:
            if self.pool.num_owners(block) < 2:
                break
            num_shared += 1
        return len(seat.blocks) - num_shared

    def num_lost(self, seat: Seat) -> int:
        """Computed tokens that nobody would hold if `seat` let go, and its company with it."""
        if seat.company:
            return self.num_freed(seat) * self.block_size
        return seat.num_computed - (len(seat.blocks) - self.num_freed(seat)) * self.block_size

    def match(self, seat: Seat) -> list[int]:
        """Blocks that already hold the beginning of `seat`, which holds none yet."""
        if self.prefix is None or seat.owes_prompt_logprobs:
            return []
        if seat.chain is None:
            seat.chain = _start(self.prefix, seat)
        return self.prefix.match(seat.tokens, seat.chain)

    def are_strangers(self, seats: Iterable[Seat]) -> bool:
        """Whether nobody holds the first block of any of `seats`: most often so, and seen at a look each."""
        prefix = self.prefix
        return prefix is None or prefix.is_new([seat.opening or _opening(prefix, seat) for seat in seats])

    def num_likely(self, seat: Seat) -> int:
        """About how many tokens at the beginning of `seat`, which holds no block yet, `match` would find."""
        if self.prefix is None or not len(self.prefix) or seat.owes_prompt_logprobs:
            return 0
        if seat.chain is None:
            seat.chain = _start(self.prefix, seat)
        return self.prefix.likely(seat.tokens, seat.chain) * self.block_size

    def num_idle_without(self, blocks: list[int]) -> int:
        """Blocks that could be taken after `blocks` were shared."""
        return self.pool.num_idle - sum(1 for block in blocks if self.pool.num_owners(block) == 0)

    def num_only_of(self, seats: Sequence[Seat], but: list[int]) -> int:
        """Blocks that only `seats` hold, those in `but` not counted."""
        num_held = sum([len(seat.blocks) for seat in seats])
        if not num_held:
            return 0
        held = Counter(chain.from_iterable([seat.blocks for seat in seats]))
        owners = self.pool.num_owners
        for block in but:
            held.pop(block, None)
        return sum([owners(block) == count for block, count in held.items()])

    def adopt(self, seat: Seat, hits: list[int]) -> None:
        """`seat` begins with the blocks that `match` found."""
        for block in hits:
            if self.pool.num_owners(block) == 0:
                self.num_filled += self.block_size
            self.pool.share(block)
        seat.blocks = hits
        seat.account.num_blocks += len(hits)
        seat.num_named = len(hits)
        seat.num_computed = len(hits) * self.block_size

    def grow(self, seat: Seat, end: int) -> tuple[int, int] | None:
        """Take blocks up to position `end`; the (source, destination) to copy first if the last block was shared."""
        copy = self._own_last(seat) if self.is_shared(seat) else None
        num_more = -(-end // self.block_size) - len(seat.blocks)
        if num_more > 0:
            seat.blocks += self._take_many(num_more)
            seat.account.num_blocks += num_more
        return copy

    def extend(self, seat: Seat) -> bool:
        """Take one block behind the full ones of `seat`; False if none is idle."""
        if not self.pool.num_idle:
            return False
        seat.blocks.append(self._take())
        seat.account.num_blocks += 1
        return True

    def advance(self, seat: Seat, num_tokens: int) -> None:
        """`num_tokens` more are computed: full blocks are offered to others."""
        seat.num_computed += num_tokens
        self.num_filled += num_tokens
        if seat.num_computed // self.block_size > seat.num_named:
            self.offer(seat)

    def offer(self, seat: Seat) -> None:
        """A block of `seat` has just become full: others may find it."""
        first, end = seat.num_named, seat.num_computed // self.block_size
        if self.prefix is None or first >= end:
            return
        if seat.chain is None:
            seat.chain = _start(self.prefix, seat)
        self.pool.keep(self.prefix.publish(seat.tokens, seat.chain, first, seat.blocks[first:end]))
        seat.num_named = end

    def fork(self, parent: Seat, child: Seat) -> None:
        """`child` holds what `parent` holds."""
        for block in parent.blocks:
            self.pool.share(block)
        child.blocks = parent.blocks.copy()
        child.account.num_blocks += len(child.blocks)
        child.num_computed = parent.num_computed
        child.num_named = parent.num_named
        child.chain = parent.chain.copy() if parent.chain is not None else None
        child.opening = parent.opening

    def branch(self, parent: Seat, child: Seat, num_tokens: int) -> None:
        """`child`, which holds nothing, holds the full blocks of the first `num_tokens` of `parent`.

        The partly filled one is not shared: those who hold one all hold as much of it (`let_go` counts on that).
        """
        num_blocks = num_tokens // self.block_size
        child.blocks = parent.blocks[:num_blocks]
        for block in child.blocks:
            self.pool.share(block)
        child.account.num_blocks += num_blocks
        child.num_computed = num_blocks * self.block_size
        child.num_named = min(num_blocks, parent.num_named)
        child.chain, child.opening = None, NO_NAME

    def let_go(self, seat: Seat) -> None:
        """`seat` holds nothing. Its last block is released first, so that the longest prefixes survive longest."""
        num_full, num_last = divmod(seat.num_computed, self.block_size)
        freed = self.pool.release_many(seat.blocks[::-1])[::-1]
        self.num_filled -= self.block_size * sum(freed[:num_full])
        if num_last and freed[num_full]:
            self.num_filled -= num_last
        seat.account.num_blocks -= len(seat.blocks)
        seat.blocks = []  # a new list: the old one may still be read by a step under way
        seat.num_computed = seat.num_named = 0
        seat.steady = False

    def spoil(self, seat: Seat) -> None:
        """What `seat` computed cannot be trusted: nobody else may find it."""
        if self.prefix is not None:
            for block in seat.blocks:
                self.prefix.forget(block)
                self.pool.discard(block)

    def forget_cached(self) -> None:
        """Nobody finds what nobody holds any more."""
        for block in self.pool.drop_cached():
            if self.prefix is not None:
                self.prefix.forget(block)

    def check(self, seats: Iterable[Seat]) -> None:
        """Raise `InternalError` unless the pool's owners are exactly `seats`, and every slot is accounted for."""
        self.pool.check()
        size, blocks = self.block_size, range(self.pool.num_blocks)
        owners = [0] * len(blocks)
        filled = [0] * len(blocks)
        held: Counter[Account] = Counter()
        for seat in seats:
            held[seat.account] += len(seat.blocks)
            left = seat.num_computed
            for block in seat.blocks:
                owners[block] += 1
                filled[block] = max(filled[block], min(size, left))
                left = max(0, left - size)
        if owners != [self.pool.num_owners(block) for block in blocks]:
            raise InternalError("owners of a block are miscounted", got=list(map(self.pool.num_owners, blocks)))
        if sum(filled) != self.num_filled:
            raise InternalError("filled slots are miscounted", got=self.num_filled, allowed=sum(filled))
        if any(account.num_blocks != count for account, count in held.items()):
            raise InternalError("the blocks of a tenant are miscounted", allowed=sorted(held.values()))
        kept = [block for block in blocks if self.pool.is_kept(block)]
        known = self.prefix if self.prefix is not None else ()
        if len(kept) != len(known) or not all(block in known for block in kept):
            raise InternalError("a block is published and not kept, or kept and not published", got=kept)

    def is_shared(self, seat: Seat) -> bool:
        """True if `seat` must copy its last block before it writes there."""
        # Only the partly filled last block is ever written again, so it alone can need a copy.
        return seat.num_computed % self.block_size != 0 and self.pool.num_owners(seat.blocks[-1]) > 1

    def _own_last(self, seat: Seat) -> tuple[int, int]:
        source = seat.blocks[-1]
        destination = self._take()
        self.pool.release(source)
        seat.blocks[-1] = destination
        self.num_filled += seat.num_computed % self.block_size
        return source, destination

    def _take(self) -> int:
        block = self.pool.take()
        if self.prefix is not None:
            self.prefix.forget(block)
        return block

    def _take_many(self, count: int) -> list[int]:
        blocks = self.pool.take_many(count)
        if self.prefix is not None:
            for block in blocks:
                self.prefix.forget(block)
        return blocks


def _opening(prefix: PrefixIndex, seat: Seat) -> bytes:
    """The name of its first block, once it is looked for; never changes while `seat` waits."""
    if seat.owes_prompt_logprobs or len(seat.tokens) <= prefix.block_size:
        return NO_NAME
    if seat.chain is None:
        seat.chain = _start(prefix, seat)
    seat.opening = prefix.first_name(seat.tokens, seat.chain)
    return seat.opening


def _start(prefix: PrefixIndex, seat: Seat) -> Chain:
    return prefix.start(seat.request.cache_salt, seat.request.num_public_tokens)
