"""The block pool by itself. Knows: what an owner may expect. Does not know: sequences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quire.cache.blocks import BlockPool
from quire.errors import InternalError


def test_blocks_are_taken_in_order_and_counted() -> None:
    pool = BlockPool(3)
    assert [pool.take(), pool.take()] == [0, 1]
    assert (pool.num_used, pool.num_free, pool.num_cached, pool.num_idle) == (2, 1, 0, 1)


def test_a_block_without_content_is_reused_before_any_other() -> None:
    pool = BlockPool(3)
    first = pool.take()
    assert pool.release(first)
    assert pool.take() == first


def test_cached_blocks_are_reused_last_and_least_recently_released_first() -> None:
    pool = BlockPool(4)
    blocks = [pool.take() for _ in range(3)]
    for block in blocks:
        pool.keep([block])
    for block in (blocks[1], blocks[2], blocks[0]):
        pool.release(block)
    assert (pool.num_cached, pool.num_free) == (3, 1)
    assert [pool.take() for _ in range(4)] == [3, blocks[1], blocks[2], blocks[0]]


def test_sharing_a_cached_block_saves_it_from_reuse() -> None:
    pool = BlockPool(2)
    kept = pool.take()
    pool.keep([kept])
    pool.release(kept)
    pool.share(kept)
    assert pool.num_owners(kept) == 1
    assert pool.take() != kept
    pool.check()
    with pytest.raises(InternalError, match="no KV block is idle"):
        pool.take()


def test_taking_a_cached_block_ends_its_content() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.keep([block])
    pool.release(block)
    assert pool.is_kept(block)
    assert pool.take() == block
    assert not pool.is_kept(block)
    pool.release(block)
    assert (pool.num_cached, pool.num_free) == (0, 1)


def test_a_shared_block_is_idle_only_after_its_last_owner() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.share(block)
    assert not pool.release(block)
    assert pool.release(block)
    with pytest.raises(InternalError, match="nobody owns"):
        pool.release(block)


def test_what_nobody_owns_is_not_shared_kept_or_discarded() -> None:
    pool = BlockPool(1)
    for misuse in (pool.share, lambda block: pool.keep([block]), pool.discard):
        with pytest.raises(InternalError):
            misuse(0)


def test_discarded_content_is_free_again() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.keep([block])
    pool.discard(block)
    pool.release(block)
    assert (pool.num_cached, pool.num_free) == (0, 1)


@pytest.mark.parametrize("damage", ["_owners", "num_cached", "_idle"])
def test_check_notices_damage(damage: str) -> None:
    pool = BlockPool(2)
    pool.take()
    pool.check()
    if damage == "_owners":
        pool._owners[0] = 0
    elif damage == "num_cached":
        pool.num_cached = 1
    else:
        pool._idle.popitem()
    with pytest.raises(InternalError):
        pool.check()


class PoolMachine(RuleBasedStateMachine):
    """The pool beside a model of it: a list of owners' handles and a set of kept blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(5)
        self.handles: list[int] = []
        self.kept: set[int] = set()

    @precondition(lambda self: len(set(self.handles)) < 5)
    @rule()
    def take(self) -> None:
        block = self.pool.take()
        assert block not in self.handles
        self.kept.discard(block)
        self.handles.append(block)

    @precondition(lambda self: self.handles or self.kept)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted({*self.handles, *self.kept})))
        self.pool.share(block)
        self.handles.append(block)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.handles))
        self.handles.remove(block)
        assert self.pool.release(block) == (block not in self.handles)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), keep=st.booleans())
    def keep_or_discard(self, data: st.DataObject, keep: bool) -> None:
        block = data.draw(st.sampled_from(self.handles))
        if keep:
            self.pool.keep([block])
            self.kept.add(block)
        else:
            self.pool.discard(block)
            self.kept.discard(block)

    @rule()
    def drop_cached(self) -> None:
        idle = self.kept - set(self.handles)
        assert set(self.pool.drop_cached()) == idle
        self.kept -= idle

    @invariant()
    def counts_agree(self) -> None:
        self.pool.check()
        used = set(self.handles)
        assert self.pool.num_used == len(used)
        assert self.pool.num_cached == len(self.kept - used)
        assert self.pool.num_used + self.pool.num_cached + self.pool.num_free == 5


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=40), st.integers(0, 8))
def test_many_at_once_are_the_same_as_one_by_one(moves: list[tuple[int, int]], count: int) -> None:
    pools = BlockPool(8), BlockPool(8)
    for pool in pools:
        for kind, block in moves:
            if kind == 0 and pool.num_idle:
                pool.take()
            elif kind == 1 and pool.num_owners(block):
                pool.keep([block])
            elif kind == 2 and pool.num_owners(block):
                pool.release(block)
    one, many = pools
    if count > many.num_idle:
        with pytest.raises(InternalError, match="too few"):
            many.take_many(count)
        return
    assert [one.take() for _ in range(count)] == many.take_many(count)
    owned = [block for block in range(8) if one.num_owners(block)]
    assert [one.release(block) for block in owned] == many.release_many(owned)
    for pool in pools:
        pool.check()
    assert (one.num_cached, one.num_idle) == (many.num_cached, many.num_idle)
    assert [one.take() for _ in range(one.num_idle)] == many.take_many(many.num_idle)
