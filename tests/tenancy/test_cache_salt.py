"""Salts never collide. Knows: typed fields. Does not know: keys, blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quire.tenancy.cache_salt import cache_salt

KINDS = st.sampled_from([b"keyh", b"askd", b"none"])
FIELDS = st.lists(st.tuples(KINDS, st.binary(max_size=6)), max_size=3)


@given(one=FIELDS, other=FIELDS)
def test_equal_salts_mean_equal_fields(one: list[tuple[bytes, bytes]], other: list[tuple[bytes, bytes]]) -> None:
    assert (cache_salt(one) == cache_salt(other)) == (one == other)


def test_fields_that_read_alike_when_joined_are_different() -> None:
    lists = (
        [(b"askd", b"ab")],
        [(b"askd", b"a"), (b"askd", b"b")],
        [(b"askd", b"a"), (b"keyh", b"b")],
        [(b"keyh", b"ab")],
        [(b"askd", b"ab\0")],
        [(b"askd", b"")],
        [(b"askd", b""), (b"askd", b"")],
        [(b"askd", b"keyh\x01\0\0\0b")],
    )
    assert len({cache_salt(fields) for fields in lists}) == len(lists)
    assert cache_salt([]) == b""
    assert len(cache_salt([(b"none", b"")])) == 32
