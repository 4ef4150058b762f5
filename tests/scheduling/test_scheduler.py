"""The scheduler's behaviour, one rule a test. Knows: steps and deltas. Does not know: how they were decided."""

from __future__ import annotations

import pytest
from scheduler_bench import Bench, alone, blind, grants, request

from quire.errors import InternalError
from quire.request import Finish
from quire.step import StepResult, WorkResult


def test_one_request_from_start_to_end() -> None:
    bench = Bench()
    bench.add(request("a", 6, max_tokens=3))
    assert (bench.scheduler.num_waiting, bench.scheduler.num_running) == (1, 0)
    bench.run()
    assert bench.computed == [(0, 6), (6, 1), (7, 1)]
    assert [delta.finish for delta in bench.heard] == [None, None, Finish.LENGTH]
    assert bench.step_ids == [1, 2, 3]
    assert bench.pool.num_used == 0


def test_a_long_prompt_is_read_in_chunks_and_draws_once() -> None:
    bench = Bench(budget=4)
    bench.add(request("a", 10, max_tokens=1))
    steps = bench.run()
    assert [len(step.works[0].tokens) for step in steps] == [4, 4, 2]
    assert [step.works[0].draw is not None for step in steps] == [False, False, True]
    assert [list(step.works[0].tokens) for step in steps] == [
        [1000, 1001, 1002, 1003],
        [1004, 1005, 1006, 1007],
        [1008, 1009],
    ]


def test_blocks_are_taken_for_granted_tokens_only() -> None:
    bench = Bench(budget=4, size=4)
    bench.add(request("a", 10, max_tokens=5))
    used = []
    while bench.scheduler.has_work:
        step = bench.scheduler.schedule(0.0)
        assert step is not None
        used.append((sum(len(work.tokens) for work in step.works), bench.pool.num_used))
        bench.scheduler.settle(step, bench.runner.run(step), 0.0)
    assert used == [(4, 1), (4, 2), (2, 3), (1, 3), (1, 3), (1, 4), (1, 4)]


def test_prompts_do_not_stall_those_who_speak() -> None:
    bench = Bench(budget=8, blocks=64)
    bench.add(request("a", 2, max_tokens=20), request("b", 2, max_tokens=20))
    bench.step()
    bench.add(request("long", 30))
    assert grants(bench.step()) == [(1, 1), (2, 1), (3, 6)]
    assert grants(bench.step()) == [(1, 1), (2, 1), (3, 6)]


def test_those_who_speak_do_not_stall_a_prompt() -> None:
    bench = Bench(budget=8, blocks=64, seqs=9)
    bench.add(*(request(f"s{number}", 1, max_tokens=30) for number in range(7)))
    bench.step()
    bench.add(request("long", 12))
    assert len(bench.step().works) == 8
    bench.add(request("eighth", 1))
    assert grants(bench.step())[-1] == (8, 2)


def test_first_come_first_served_and_nobody_is_passed_over() -> None:
    bench = Bench(blocks=6, size=4, cache=False)
    bench.add(request("a", 16, max_tokens=2), request("big", 16, max_tokens=2), request("small", 1, max_tokens=1))
    assert grants(bench.step()) == [(1, 16)]
    assert grants(bench.step()) == [(1, 1)], "small would fit, but big was here before"
    assert grants(bench.step()) == [(2, 16), (3, 1)]


def test_rows_are_a_bound_and_n_samples_hold_theirs_from_the_start() -> None:
    bench = Bench(seqs=3, blocks=64)
    bench.add(request("pair", 3, n=2), request("pair2", 3, n=2), request("one", 3))
    assert len(bench.step().works) == 1, "two rows are spoken for, and the next needs two"
    assert len(bench.step().works) == 2


def test_a_known_prefix_is_not_computed_again() -> None:
    bench = Bench(size=4)
    bench.add(request("a", 10, max_tokens=1))
    bench.run()
    bench.add(request("b", 11, max_tokens=1))
    (work,) = bench.step().works
    assert (work.start, len(work.tokens)) == (8, 3)
    assert bench.scheduler.stats().num_cached_tokens == 8
    assert bench.heard[-1].num_cached == 8


def test_a_prompt_that_is_known_as_a_whole_computes_its_last_block() -> None:
    bench = Bench(size=4)
    for name in ("a", "b"):
        bench.add(request(name, 8, max_tokens=1))
        (work,) = bench.step().works
    assert (work.start, bench.heard[-1].num_cached) == (4, 4)


def test_prefixes_are_shared_while_they_are_in_use() -> None:
    bench = Bench(size=4)
    bench.add(request("a", 9, max_tokens=9))
    bench.step()
    bench.add(request("b", 9, max_tokens=9))
    bench.step()
    assert bench.pool.num_owners(0) == bench.pool.num_owners(1) == 2
    bench.run()


def test_neither_a_salt_nor_prompt_logprobs_meet_the_cache() -> None:
    bench = Bench(size=4)
    bench.add(request("a", 10, max_tokens=1))
    bench.run()
    for other in (request("b", 10, salt=b"x", max_tokens=1), request("c", 10, prompt_logprobs=1, max_tokens=1)):
        bench.add(other)
        assert bench.step().works[0].start == 0
    assert [len(delta.prompt_logprobs) for delta in bench.heard] == [0, 0, 9]


def test_answers_are_published_too() -> None:
    bench = Bench(size=4)
    first = request("a", 4, max_tokens=9)
    bench.add(first)
    bench.run()
    bench.add(request("b", [*first.prompt, *bench.tokens("a"), 7], max_tokens=1))
    assert bench.step().works[0].start == 12


def test_samples_part_after_the_prompt_and_copy_before_they_write() -> None:
    bench = Bench(size=4, blocks=32)
    bench.add(request("a", 6, n=3, max_tokens=4))
    (work,) = bench.step().works
    assert work.draw is not None
    assert work.draw.indices == (0, 1, 2)
    assert [delta.index for delta in bench.heard] == [0, 1, 2]
    table = list(work.block_table)
    assert [bench.pool.num_owners(block) for block in table] == [3, 3]
    step = bench.step()
    assert len(step.copies) == 2, "the last owner writes in place"
    assert {source for source, _ in step.copies} == {table[1]}
    assert [bench.pool.num_owners(block) for block in table] == [3, 1]
    assert not bench.step().copies
    bench.run()
    assert [bench.tokens("a", index) for index in range(3)] == alone(request("a", 6, n=3, max_tokens=4))
    assert len({tuple(bench.tokens("a", index)) for index in range(3)}) == 3


def test_a_prompt_of_full_blocks_parts_without_copies() -> None:
    bench = Bench(size=4, blocks=32)
    bench.add(request("a", 8, n=3, max_tokens=4))
    assert not any(step.copies for step in bench.run())


def test_the_youngest_is_put_back_and_says_nothing_twice() -> None:
    bench = blind(Bench(size=2, blocks=9, cache=False))
    asked = [request(f"r{number}", [number, 7], max_tokens=12, prompt_logprobs=0) for number in range(3)]
    bench.add(*asked)
    bench.run()
    assert bench.num_preempted > 0
    for each in asked:
        assert [bench.tokens(each.id)] == alone(each)
        mine = [delta for delta in bench.heard if delta.request_id == each.id]
        assert sum(len(delta.prompt_logprobs) for delta in mine) == 1
        assert sum(delta.finish is not None for delta in mine) == 1
    ends = [delta.request_id for delta in bench.heard if delta.finish]
    assert ends == ["r0", "r1", "r2"]


def test_who_was_put_back_finds_its_blocks_again() -> None:
    bench = blind(Bench(size=2, blocks=10))
    bench.add(request("a", [1, 2, 3], max_tokens=15), request("b", [4, 5, 6], max_tokens=15))
    num_cached = 0
    while bench.scheduler.has_work:
        bench.step()
        num_cached += bench.scheduler.stats().num_cached_tokens
    assert bench.num_preempted > 0
    assert num_cached > 0
    assert {delta.num_cached for delta in bench.heard} == {0}, "its own work is not a prefix hit to anyone outside"


def test_what_is_computed_again_is_counted_as_wasted() -> None:
    bench = blind(Bench(size=2, blocks=10, cache=False))
    bench.add(request("a", [1, 2, 3], max_tokens=15), request("b", [4, 5, 6], max_tokens=15))
    repeated = 0
    computed = 0
    while bench.scheduler.has_work:
        computed += bench.step().num_tokens
        repeated += bench.scheduler.stats().num_repeated_tokens
    assert bench.num_preempted > 0
    assert computed == 2 * 17 + repeated


def test_what_nobody_waited_for_is_counted_as_wasted() -> None:
    bench = Bench(size=4, blocks=64)
    bench.add(request("a", 8, max_tokens=9), request("b", 9, max_tokens=9), request("c", [7] * 6, n=3, max_tokens=9))
    bench.step()
    bench.scheduler.abort("a")
    assert bench.scheduler.stats().num_aborted_tokens == 8
    assert bench.scheduler.stats().num_output_tokens == 0, "the step before is not told twice"
    bench.step()
    bench.scheduler.abort("b", served=True)
    assert bench.scheduler.stats().num_aborted_tokens == 0
    bench.scheduler.abort("c", 1)
    assert bench.scheduler.stats().num_aborted_tokens == 1, "the prompt is still of use to the others"


def test_what_went_wrong_is_counted_as_wasted() -> None:
    bench = Bench()
    bench.add(request("bad", 9))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    bench.scheduler.settle(step, StepResult((WorkResult(error="not finite"),)), 0.0)
    assert bench.scheduler.stats().num_failed_tokens == 9


def test_samples_that_were_put_back_return_as_themselves() -> None:
    bench = Bench(size=2, blocks=9)
    asked = request("a", 3, n=3, max_tokens=10)
    bench.add(asked)
    bench.run()
    assert bench.num_preempted > 0
    assert [bench.tokens("a", index) for index in range(3)] == alone(asked)


def test_who_is_short_of_blocks_and_youngest_keeps_what_it_has() -> None:
    bench = Bench(size=2, blocks=4, cache=False)
    bench.add(request("a", [1], max_tokens=4), request("b", [2], max_tokens=7))
    bench.run()
    assert bench.num_preempted == 0
    assert len(bench.tokens("b")) == 7


def test_abort_waiting_running_and_unknown() -> None:
    bench = Bench(seqs=1)
    bench.add(request("runs", 3), request("waits", 3))
    bench.step()
    assert [(delta.index, delta.finish) for delta in bench.scheduler.abort("runs")] == [(0, Finish.ABORT)]
    assert [(delta.index, delta.finish) for delta in bench.scheduler.abort("waits")] == [(0, Finish.ABORT)]
    assert bench.scheduler.abort("runs") == bench.scheduler.abort("nobody") == []
    assert not bench.scheduler.has_work
    assert bench.pool.num_used == 0
    bench.scheduler.check()


def test_abort_while_the_step_runs_drops_its_result() -> None:
    bench = Bench()
    bench.add(request("gone", 3), request("stays", 3))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    bench.scheduler.abort("gone")
    news = bench.scheduler.settle(step, bench.runner.run(step), 0.0)
    assert [delta.request_id for delta in news] == ["stays"]
    bench.scheduler.check()


def test_one_sample_can_be_ended_before_and_after_parting() -> None:
    bench = Bench(blocks=32)
    asked = request("a", 6, n=4, max_tokens=4)
    bench.add(asked)
    assert [delta.index for delta in bench.scheduler.abort("a", 0)] == [0]
    bench.step()
    assert [delta.index for delta in bench.scheduler.abort("a", 2)] == [2]
    bench.run()
    expected = alone(asked)
    assert [bench.tokens("a", index) for index in range(4)] == [[], expected[1], expected[2][:1], expected[3]]


def test_one_sample_ended_while_the_prompt_runs() -> None:
    bench = Bench(blocks=32)
    bench.add(request("a", 6, n=2, max_tokens=3))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    bench.scheduler.abort("a", 0)
    news = bench.scheduler.settle(step, bench.runner.run(step), 0.0)
    assert [delta.index for delta in news] == [1]
    bench.run()


def test_ends_are_banned_before_min_tokens() -> None:
    bench = Bench()
    bench.add(request("a", 3, eos=(5,), stop_token_ids=[6], min_tokens=2, max_tokens=4))
    banned = []
    while bench.scheduler.has_work:
        draw = bench.step().works[0].draw
        assert draw is not None
        banned.append(draw.banned_ids)
    assert banned == [(5, 6), (5, 6), (), ()]
    bench.add(request("b", 3, eos=(5,), ignore_eos=True, stop_token_ids=[6], min_tokens=2, max_tokens=4))
    draw = bench.step().works[0].draw
    assert draw is not None
    assert draw.banned_ids == (6,)


def test_a_stop_id_ends_a_sample_and_is_named() -> None:
    bench = Bench()
    plain = request("a", 3, max_tokens=8)
    third = alone(plain)[0][2]
    bench.add(request("a", 3, max_tokens=8, stop_token_ids=[third]), request("b", 3, max_tokens=8, ignore_eos=True))
    bench.run()
    last = next(delta for delta in bench.heard if delta.request_id == "a" and delta.finish)
    assert (last.finish, last.stop_token, last.tokens) == (Finish.STOP, third, (third,))
    assert bench.tokens("a")[-1] == third


def test_an_error_ends_its_request_and_not_its_neighbour() -> None:
    bench = Bench(size=4)
    bench.add(request("bad", 9, n=2), request("good", [1, 2, 3]))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    result = bench.runner.run(step)
    news = bench.scheduler.settle(step, StepResult((WorkResult(error="not finite"), result.works[1])), 0.0)
    assert [(delta.request_id, delta.index, delta.finish, delta.error) for delta in news] == [
        ("bad", 0, Finish.ERROR, "not finite"),
        ("bad", 1, Finish.ERROR, "not finite"),
        ("good", 0, None, None),
    ]
    bench.scheduler.check()
    bench.run()


def test_what_went_wrong_is_not_found_by_others() -> None:
    bench = Bench(size=4, budget=8)
    bench.add(request("bad", 13))
    bench.step()
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    bench.scheduler.settle(step, StepResult((WorkResult(error="not finite"),)), 0.0)
    bench.scheduler.check()
    bench.add(request("next", 13))
    assert bench.step().works[0].start == 0


def test_prompt_logprobs_are_told_chunk_by_chunk() -> None:
    bench = Bench(budget=4)
    bench.add(request("a", 6, prompt_logprobs=2, max_tokens=2))
    bench.run()
    told = [[entry.token for entry in delta.prompt_logprobs] for delta in bench.heard]
    assert told == [[1001, 1002, 1003, 1004], [1005], []]
    assert [len(delta.tokens) for delta in bench.heard] == [0, 1, 1]


def test_steps_are_settled_once_and_in_turn() -> None:
    bench = Bench()
    bench.add(request("a", 3))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    with pytest.raises(InternalError, match="before the last one"):
        bench.scheduler.schedule(0.0)
    with pytest.raises(InternalError, match="not the result"):
        bench.scheduler.settle(step, StepResult(()), 0.0)
    result = bench.runner.run(step)
    bench.scheduler.settle(step, result, 0.0)
    with pytest.raises(InternalError, match="not the result"):
        bench.scheduler.settle(step, result, 0.0)


def test_a_result_without_its_tokens_is_our_mistake() -> None:
    bench = Bench()
    bench.add(request("a", 3))
    step = bench.scheduler.schedule(0.0)
    assert step is not None
    with pytest.raises(InternalError, match="tokens missing"):
        bench.scheduler.settle(step, StepResult((WorkResult(),)), 0.0)


def test_the_numbers_of_a_step() -> None:
    bench = Bench(size=4, blocks=16)
    bench.add(request("a", 6, max_tokens=2), request("b", [1, 2, 3], max_tokens=1))
    bench.step()
    stats = bench.scheduler.stats(seconds=0.5)
    assert (stats.num_prompt_tokens, stats.num_output_tokens, stats.num_finished) == (9, 2, 1)
    assert (stats.num_running, stats.num_waiting, stats.seconds) == (1, 0, 0.5)
    use = stats.cache
    assert (use.num_blocks, use.num_used, use.num_cached, use.num_free) == (16, 2, 0, 14)
    assert (use.num_wasted_slots, use.waste_share) == (2, 0.25)


def test_the_same_events_give_the_same_steps() -> None:
    def steps() -> list[object]:
        bench = Bench(size=2, blocks=9)
        bench.add(*(request(f"r{number}", [number, 7, 8], n=1 + number % 2, max_tokens=9) for number in range(5)))
        return [(grants(step), step.copies, [list(work.block_table) for work in step.works]) for step in bench.run()]

    assert steps() == steps()


def test_a_reset_cache_has_no_hits() -> None:
    bench = Bench(blocks=64)
    counts = []
    for name in ("first", "again", "after"):
        if name == "after":
            bench.scheduler.reset_prefix_cache()
        bench.add(request(name, 40, max_tokens=1))
        bench.run()
        counts.append(bench.heard[-1].num_cached)
        bench.scheduler.check()
    assert counts[0] == counts[2] == 0
    assert counts[1] > 0
