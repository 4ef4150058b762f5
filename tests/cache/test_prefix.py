"""The prefix index by itself. Knows: what may be found, by whom. Does not know: owners of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quire.cache.prefix as prefix_module
from quire.cache.prefix import Chain, PrefixIndex
from quire.errors import InternalError


def published(tokens: list[int], size: int = 4, salt: bytes = b"") -> PrefixIndex:
    """An index that knows every full block of `tokens` as blocks 10, 11, ..."""
    index = PrefixIndex(size)
    chain = index.start(salt)
    for number in range(len(tokens) // size):
        assert index.publish(tokens, chain, number, [10 + number])
    return index


def found(index: PrefixIndex, tokens: list[int], salt: bytes = b"") -> list[int]:
    return index.match(tokens, index.start(salt))


def test_the_longest_known_beginning_is_found() -> None:
    index = published(list(range(12)))
    assert found(index, [*range(12), 99]) == [10, 11, 12]
    assert found(index, [*range(8), 99, 99, 99, 99, 99]) == [10, 11]
    assert found(index, [99, *range(11)]) == []


def test_one_token_is_always_left_to_compute() -> None:
    index = published(list(range(8)))
    assert found(index, list(range(8))) == [10]
    assert found(index, list(range(9))) == [10, 11]
    assert found(index, list(range(4))) == []
    assert found(index, [0]) == []


def test_equal_blocks_after_different_beginnings_are_different() -> None:
    index = published([1, 1, 1, 1, 7, 7, 7, 7])
    assert found(index, [2, 2, 2, 2, 7, 7, 7, 7, 0]) == []
    assert found(index, [7, 7, 7, 7, 0]) == []


def test_salts_keep_apart() -> None:
    index = published(list(range(8)), salt=b"mine")
    assert found(index, list(range(9)), salt=b"mine") == [10, 11]
    for other in (b"", b"yours", b"min", b"mine\0", b"\xff"):
        assert found(index, list(range(9)), salt=other) == []


def test_fields_cannot_run_into_each_other() -> None:
    roots = {PrefixIndex(size).start(salt).root for size in (1, 16, 256) for salt in (b"", b"a", b"\0", b"aa")}
    assert len(roots) == 12


def test_the_first_publisher_wins() -> None:
    index = published(list(range(4)))
    assert not index.publish(list(range(4)), index.start(b""), 0, [77])
    assert found(index, list(range(5))) == [10]
    assert 77 not in index
    with pytest.raises(InternalError, match="published as something else"):
        index.publish([9, 9, 9, 9], index.start(b""), 0, [10])


def test_what_is_forgotten_is_not_found_and_may_be_published_again() -> None:
    index = published(list(range(12)))
    index.forget(11)
    index.forget(11)
    index.forget(1234)
    assert found(index, [*range(12), 0]) == [10]
    assert (len(index), 11 in index) == (2, False)
    assert index.publish(list(range(12)), index.start(b""), 1, [20])
    assert found(index, [*range(12), 0]) == [10, 20, 12]


def test_each_name_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    real = prefix_module.sha256

    def counting(data: bytes) -> object:
        nonlocal count
        count += 1
        return real(data)

    monkeypatch.setattr(prefix_module, "sha256", counting)
    index, tokens = PrefixIndex(2), list(range(41))
    chain = index.start(b"")
    for _ in range(3):
        index.match(tokens, chain)
        for number in range(20):
            index.publish(tokens, chain, number, [number])
    assert count == 1 + 20


def test_a_miss_looks_no_further() -> None:
    index = PrefixIndex(2)
    chain = index.start(b"")
    index.match(list(range(1000)), chain)
    assert len(chain.names) == 1


def test_copies_of_a_chain_go_their_own_way() -> None:
    index = PrefixIndex(2)
    chain = index.start(b"")
    index.publish([1, 2], chain, 0, [5])
    other = chain.copy()
    index.publish([1, 2, 3, 4], other, 1, [6])
    assert (len(chain.names), len(other.names)) == (1, 2)
    assert isinstance(other, Chain)
    assert other.names[0] == chain.names[0]


def test_what_is_public_is_found_under_every_salt_and_nothing_behind_it() -> None:
    index, tokens = PrefixIndex(4), list(range(16))
    mine = index.start(b"mine", 10)
    for number in range(4):
        assert index.publish(tokens, mine, number, [10 + number])
    assert index.match([*tokens, 99], index.start(b"mine", 10)) == [10, 11, 12, 13]
    assert index.match([*tokens, 99], index.start(b"yours", 10)) == [10, 11]
    assert index.match([*tokens, 99], index.start(b"mine", 4)) == [10], "where it turns private is part of a name"
    assert index.match([*tokens, 99], index.start(b"mine", 16)) == [10, 11]
    assert index.match([*tokens, 99], index.start(b"mine")) == []
    assert index.match([*tokens, 99], index.start(b"", 10)) == [10, 11]


def test_less_than_a_block_is_not_public() -> None:
    index = PrefixIndex(4)
    assert index.start(b"a", 3).root == index.start(b"a").root != index.start(b"b", 3).root
    assert index.start(b"a", 4).root == index.start(b"b", 7).root


def test_no_salt_is_the_public_root() -> None:
    """Of all salts none names blocks as the public does, whatever a key's hash is."""
    index = PrefixIndex(4)
    public = index.start(b"", 4).root
    assert all(index.start(salt).root != public for salt in (b"", b"publ", b"salt", public, b"public"))


SHORT = st.lists(st.integers(0, 1), min_size=9, max_size=9)
SALTS = st.sampled_from([b"", b"a", b"b"])


@given(mine=SHORT, yours=SHORT, my_salt=SALTS, your_salt=SALTS, num_mine=st.integers(0, 9), num_yours=st.integers(0, 9))
def test_two_share_a_block_if_and_only_if_they_may(
    mine: list[int], yours: list[int], my_salt: bytes, your_salt: bytes, num_mine: int, num_yours: int
) -> None:
    """Equal tokens up to its end, and public for both, or the same salt and turned private at the same block."""
    index = PrefixIndex(2)
    chain = index.start(my_salt, num_mine)
    for number in range(4):
        index.publish(mine, chain, number, [number])
    found = len(index.match(yours, index.start(your_salt, num_yours)))
    expected = 0
    for number in range(4):
        end = 2 * number + 2
        public = num_mine // 2 > number and num_yours // 2 > number
        private = my_salt == your_salt and num_mine // 2 == num_yours // 2
        if mine[:end] != yours[:end] or not (public or private):
            break
        expected += 1
    assert found == expected


@given(st.integers(0, 40), st.integers(0, 40))
def test_what_is_likely_found_is_found_where_only_ends_are_missing(num_known: int, num_asked: int) -> None:
    known, asked = list(range(4 * num_known)), list(range(4 * num_asked + 1))
    index = published(known)
    chain = index.start(b"")
    assert index.likely(asked, chain) == len(found(index, asked)) == min(num_known, num_asked)
    assert len(chain.names) <= 2 * (num_known + 1), "and no more is named than twice as much"


def test_what_has_lost_its_beginning_is_never_likely_to_be_found_further_than_it_goes() -> None:
    index = published(list(range(40)))
    index.forget(10)
    assert index.likely(list(range(41)), index.start(b"")) == 0


def test_whether_anything_is_published_is_seen_by_first_names() -> None:
    index = PrefixIndex(4)
    tokens = list(range(9))
    mine, salted = index.start(b""), index.start(b"other")
    names = [index.first_name(tokens, chain) for chain in (mine, salted)]
    assert index.is_new(names)
    assert names[0] != names[1]
    assert index.publish(tokens, index.start(b""), 0, [3, 5]) == [3, 5]
    assert not index.is_new(names)
    assert index.is_new([names[1], b""])
    assert index.publish(tokens, mine, 0, [6, 7]) == []
    assert names[0] == mine.names[0]
