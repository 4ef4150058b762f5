"""What is refused at the door. Knows: every bound and its neighbour. Does not know: who is inside."""

from __future__ import annotations

import gc

import pytest
from scheduler_bench import Bench, request

from quire.beams import Beams
from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.errors import ContextLengthExceeded, InternalError, InvalidSetting, RequestError
from quire.request import Request, SamplingParams
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.scheduling.seat import Seat


def test_the_context_is_a_bound_and_both_counts_are_named() -> None:
    bench = Bench(length=20)
    bench.add(request("fits", 16, max_tokens=4))
    with pytest.raises(ContextLengthExceeded) as refused:
        bench.add(request("long", 17, max_tokens=4))
    assert refused.value.code == "context_length_exceeded"
    assert "17 prompt tokens and 4 to generate" in refused.value.message
    assert "20 tokens" in refused.value.message
    assert refused.value.param == "max_tokens"


def test_a_prompt_that_leaves_no_room_is_to_blame_itself() -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        Bench(length=20).add(request("long", 20, max_tokens=1))
    assert refused.value.param == "prompt"


def test_the_pool_is_a_bound_and_the_last_token_needs_no_slot() -> None:
    bench = Bench(blocks=4, size=4)
    bench.add(request("fits", 13, max_tokens=4))
    with pytest.raises(ContextLengthExceeded, match="KV cache") as refused:
        bench.add(request("big", 14, max_tokens=4))
    assert "17 tokens" in refused.value.message
    bench.run()
    assert len(bench.tokens("fits")) == 4


def test_a_search_must_fit_the_pool_with_nothing_but_its_prompt_in_common() -> None:
    """A full block of the prompt, and two more for each of three beams."""
    params = SamplingParams(seed=0, max_tokens=8)
    for num_blocks, fits in ((7, True), (6, False)):
        bench = Bench(blocks=num_blocks, size=4, seqs=3)
        search = Request("wide", tuple(range(5)), params, beams=Beams(3))
        if fits:
            bench.add(search)
            continue
        with pytest.raises(ContextLengthExceeded) as refused:
            bench.add(search)
        assert "may need 7" in refused.value.message


def test_a_search_that_has_ended_is_no_garbage_to_be_searched_for() -> None:
    """Beams know each other: whoever goes has to be let go of, since the next search for cycles may be minutes away."""
    bench = Bench(seqs=3)
    gc.collect()
    gc.disable()
    try:
        bench.add(Request("gone-1", tuple(range(5)), SamplingParams(seed=0, max_tokens=8), beams=Beams(3)))
        bench.run()
        bench.add(request("gone-2", 2))  # the scheduler remembers who was in the last step
        bench.run()
        here = [each.request.id for each in gc.get_objects() if type(each) is Seat]
        assert [name for name in here if name.startswith("gone-")] == ["gone-2"]
    finally:
        gc.enable()


def test_n_is_bounded_by_the_rows() -> None:
    bench = Bench(seqs=3)
    bench.add(request("three", 2, n=3))
    with pytest.raises(RequestError) as refused:
        bench.add(request("four", 2, n=4))
    assert (refused.value.param, refused.value.status) == ("n", 400)


def test_an_id_is_taken_until_its_request_ends() -> None:
    bench = Bench()
    bench.add(request("same", 3))
    with pytest.raises(RequestError, match="already here"):
        bench.add(request("same", 3))
    bench.run()
    bench.add(request("same", 3))


def test_what_was_refused_leaves_no_trace() -> None:
    bench = Bench(length=10)
    with pytest.raises(RequestError):
        bench.add(request("long", 30))
    assert not bench.scheduler.has_work
    assert bench.scheduler.schedule(0.0) is None
    assert bench.scheduler.abort("long") == []


@pytest.mark.parametrize("field", range(4))
def test_limits_below_one_are_refused(field: int) -> None:
    values = [1, 1, 1, 1]
    SchedulerLimits(*values)
    values[field] = 0
    with pytest.raises(InvalidSetting):
        SchedulerLimits(*values)


def test_index_and_scheduler_agree_on_the_block_size() -> None:
    with pytest.raises(InternalError):
        Scheduler(SchedulerLimits(1, 1, 1, 4), BlockPool(1), PrefixIndex(8))
