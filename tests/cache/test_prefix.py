"""The prefix index by itself. Knows: what may be found, by whom. Does not know: owners of blocks."""

from __future__ import annotations

import pytest

import quire.cache.prefix as prefix_module
from quire.cache.prefix import Chain, PrefixIndex
from quire.errors import InternalError


def published(tokens: list[int], size: int = 4, salt: str = "") -> PrefixIndex:
    """An index that knows every full block of `tokens` as blocks 10, 11, ..."""
    index = PrefixIndex(size)
    chain = index.start(salt)
    for number in range(len(tokens) // size):
        assert index.publish(tokens, chain, number, 10 + number)
    return index


def found(index: PrefixIndex, tokens: list[int], salt: str = "") -> list[int]:
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
    index = published(list(range(8)), salt="mine")
    assert found(index, list(range(9)), salt="mine") == [10, 11]
    for other in ("", "yours", "min", "mine\0", "\ud800"):
        assert found(index, list(range(9)), salt=other) == []


def test_fields_cannot_run_into_each_other() -> None:
    roots = {PrefixIndex(size).start(salt).root for size in (1, 16, 256) for salt in ("", "a", "\0", "aa")}
    assert len(roots) == 12


def test_the_first_publisher_wins() -> None:
    index = published(list(range(4)))
    assert not index.publish(list(range(4)), index.start(""), 0, 77)
    assert found(index, list(range(5))) == [10]
    assert 77 not in index
    with pytest.raises(InternalError, match="published as something else"):
        index.publish([9, 9, 9, 9], index.start(""), 0, 10)


def test_what_is_forgotten_is_not_found_and_may_be_published_again() -> None:
    index = published(list(range(12)))
    index.forget(11)
    index.forget(11)
    index.forget(1234)
    assert found(index, [*range(12), 0]) == [10]
    assert (len(index), 11 in index) == (2, False)
    assert index.publish(list(range(12)), index.start(""), 1, 20)
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
    chain = index.start("")
    for _ in range(3):
        index.match(tokens, chain)
        for number in range(20):
            index.publish(tokens, chain, number, number)
    assert count == 1 + 20


def test_a_miss_looks_no_further() -> None:
    index = PrefixIndex(2)
    chain = index.start("")
    index.match(list(range(1000)), chain)
    assert len(chain.names) == 1


def test_copies_of_a_chain_go_their_own_way() -> None:
    index = PrefixIndex(2)
    chain = index.start("")
    index.publish([1, 2], chain, 0, 5)
    other = chain.copy()
    index.publish([1, 2, 3, 4], other, 1, 6)
    assert (len(chain.names), len(other.names)) == (1, 2)
    assert isinstance(other, Chain)
    assert other.names[0] == chain.names[0]
