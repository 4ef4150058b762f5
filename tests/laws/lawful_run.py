"""One trace through scheduler and fake runner, with every law held after every step.

Knows: the laws. Does not know: where traces come from.
"""

from __future__ import annotations

from collections import Counter

from random_traces import VOCAB_SIZE, Abort, Trace

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.open_request import OpenRequest
from quire.errors import RequestError
from quire.request import Finish, Request, Sequence
from quire.runner.fake import FakeRunner, choose_token, likeliest
from quire.scheduling.scheduler import Scheduler
from quire.scheduling.seat import Seat
from quire.step import Delta, Draw, Step, StepResult, WorkResult


class LawfulRun:
    """`run()` plays the trace to its end; `seen` counts what happened on the way."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.requests: dict[str, Request] = {}
        self.samples: dict[tuple[str, int], list[Delta]] = {}
        self.seen: Counter[str] = Counter()
        self.open: dict[str, OpenRequest] = {}
        self._begin()

    def _begin(self) -> None:
        """An engine that knows nobody."""
        trace = self.trace
        self.pool = BlockPool(trace.num_blocks)
        prefix = PrefixIndex(trace.limits.block_size) if trace.cache else None
        self.scheduler = Scheduler(trace.limits, self.pool, prefix, trace.policy)
        self.runner = FakeRunner(VOCAB_SIZE, trace.limits.block_size)
        if trace.rash:
            for lane in (self.scheduler._ordinary, self.scheduler._flex):
                lane.entry._futures = lambda seats: [(1, len(seat.blocks), -1) for seat in seats]  # type: ignore[method-assign]

    def _lose(self, number: int) -> None:
        """The engine is gone, with all that it had not told; another one goes on."""
        self._begin()
        self.seen["lost"] += 1
        for each in self.open.values():
            each.lose()
            if not each.is_over:
                again = each.to_send()
                assert again.resumed is not None
                self.seen["resumed"] += 1
                self.seen["resumed amid an answer"] += any(tokens for _, tokens in again.resumed.samples)
                self.seen["resumed apart"] += len({tokens for _, tokens in again.resumed.samples}) > 1
                self.seen["resumed amid a prompt"] += 0 < again.resumed.num_prompt_told < len(again.prompt) - 1
                self.scheduler.add(again, float(number))

    def run(self) -> Counter[str]:
        number = 0
        last_arrival = max(at for at, _ in self.trace.arrivals)
        while number <= last_arrival or self.scheduler.has_work:
            self._arrive(number)
            self._abort(number, amid=False)
            if (number, False) in self.trace.losses:
                self._lose(number)
            self._step(number)
            self.scheduler.check()
            number += 1
            assert number <= last_arrival + 1 + self._patience(), "someone starves"
        self._judge_the_end()
        self.seen["steps"] += number
        return self.seen

    def _arrive(self, number: int) -> None:
        for at, request in self.trace.arrivals:
            if at != number:
                continue
            try:
                self.scheduler.add(request, float(number))
            except RequestError:
                self.seen["refused"] += 1
                continue
            self.requests[request.id] = request
            self.open[request.id] = OpenRequest(request, was_sent=True)
            for index in range(request.params.n):
                self.samples[request.id, index] = []

    def _abort(self, number: int, amid: bool) -> None:
        for abort in self.trace.aborts:
            if (abort.at, abort.amid) == (number, amid):
                self._end_by_hand(abort)

    def _end_by_hand(self, abort: Abort) -> None:
        news = self.scheduler.abort(abort.request_id, abort.index)
        assert all(delta.finish is Finish.ABORT and not delta.tokens for delta in news)
        assert self.scheduler.abort(abort.request_id, abort.index) == []
        self.seen["aborted"] += len(news)
        self._hear(news)

    def _step(self, number: int) -> None:
        oldest = {flex: next(iter(self._running(flex)), None) for flex in (False, True)}
        step = self.scheduler.schedule(float(number))
        if step is None:
            assert not self.scheduler.has_work
            return
        self._judge_step(step, oldest)
        result = self.runner.run(step)
        if number in self.trace.failures:
            result = StepResult((WorkResult(error="not finite"), *result.works[1:]))
        self._abort(number, amid=True)
        if (number, True) in self.trace.losses:
            self._lose(number)
            return
        self._hear(self.scheduler.settle(step, result, float(number)))
        stats = self.scheduler.stats()
        self.seen["preempted"] += stats.num_preempted
        running = [*self._running(False), *self._running(True)]
        self.seen["held back"] += any(seat.company and not seat.num_owed for seat in running)
        self.seen["asleep"] += any(seat.asleep for seat in self.scheduler._seats.values())
        self.seen["cached"] += stats.num_cached_tokens
        self.seen["copies"] += len(step.copies)
        self.seen["parted"] += sum(1 for work in step.works if work.draw and len(work.draw.indices) > 1)

    def _running(self, flex: bool) -> list[Seat]:
        return [seat for seat in self.scheduler.running if isinstance(seat, Seat) and seat.request.flex == flex]

    def _judge_step(self, step: Step, oldest: dict[bool, Seat | None]) -> None:
        limits, ordinary, flex = self.trace.limits, self._running(False), self._running(True)
        served = {work.seq_id for work in step.works}
        assert 1 <= step.num_tokens <= limits.max_num_batched_tokens
        assert len(served) == len(step.works)
        assert sum(seat.num_rows for seat in ordinary) <= limits.max_num_seqs
        assert sum(seat.num_rows for seat in ordinary + flex if seat.id in served) <= limits.max_num_seqs
        self.seen["flex beside"] += bool(ordinary) and any(seat.id in served for seat in flex)
        first = (ordinary or flex)[0]
        before = oldest[first.request.flex]
        if before is not None:
            assert before in (ordinary or flex) or first.place < before.place, "the oldest was put back for a younger"
        assert any(seat.id in served for seat in (first, *first.company)), "the oldest stands still"
        if any(not seat.request.flex for seat in self.scheduler._ordinary.line.waiting()):
            assert ordinary, "flex runs while an ordinary request waits that would fit"

    def _hear(self, news: list[Delta]) -> None:
        for delta in news:
            heard = self.samples[delta.request_id, delta.index]
            assert not heard or heard[-1].finish is None, "news after the end"
            assert request_ends_at_once(delta, self.requests[delta.request_id])
            assert delta.tokens or delta.prompt_logprobs or delta.finish, "news of nothing"
            assert not heard or heard[-1].num_cached in (0, delta.num_cached)
            heard.append(delta)
            self.open[delta.request_id].hear(delta)

    def _patience(self) -> int:
        """Whoever stands first computes a token a step and is not put back. It can lose that place, and then its work,
        only to one whose place is less and who came to run later: once to each of the others."""
        # A flex request loses its work to ordinary ones too, but only while any is here: theirs first, then its own.
        bound = 0
        for flex in (False, True):
            mine = [request for request in self.requests.values() if request.flex == flex]
            bound += sum(request.max_total_tokens * request.num_rows for request in mine) * len(mine)
        return bound * (1 + len(self.trace.losses))

    def _judge_the_end(self) -> None:
        assert self.pool.num_used == 0
        assert self.scheduler.cache_use().num_wasted_slots == 0
        assert self.pool.num_cached == 0 or self.trace.cache
        for (request_id, index), heard in self.samples.items():
            self._judge_sample(self.requests[request_id], index, heard)

    def _judge_sample(self, request: Request, index: int, heard: list[Delta]) -> None:
        tokens = [token for delta in heard for token in delta.tokens]
        expected, finish = alone(request, index) if request.beams is None else searched(request)[index]
        self.seen[f"finish {heard[-1].finish}"] += 1
        if heard[-1].finish in (Finish.ABORT, Finish.ERROR):
            assert tokens == expected[: len(tokens)]
        else:
            assert (tokens, heard[-1].finish) == (expected, finish)
            assert heard[-1].stop_token == (tokens[-1] if finish is Finish.STOP else None)
            self._judge_told(request, index, heard)
        if request.params.logprobs is not None:
            assert [entry.token for delta in heard for entry in delta.logprobs] == tokens

    def _judge_told(self, request: Request, index: int, heard: list[Delta]) -> None:
        told = tuple(entry.token for delta in heard for entry in delta.prompt_logprobs)
        if request.params.prompt_logprobs is None:
            assert told == ()
        elif index == 0 and not any(abort.request_id == request.id for abort in self.trace.aborts):
            assert told == request.prompt[1:]


def request_ends_at_once(delta: Delta, request: Request) -> bool:
    """Of a search nothing is said before its end, but what the model thought of the prompt."""
    return request.beams is None or delta.finish is not None or not delta.tokens


def searched(request: Request) -> list[tuple[list[int], Finish]]:
    """The best sequences of a search with nobody else around: plain lists, by the rules of transformers alone."""
    beams, params, prompt = request.beams, request.params, list(request.prompt)
    assert beams is not None
    ends = {*(() if params.ignore_eos else request.eos_ids), *(params.stop_token_ids or ())}
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int], Finish]] = []
    for length in range(1, request.max_tokens + 1):
        found = [
            (score + logprob, [*tokens, token])
            for score, tokens in running
            for token, logprob in likeliest([*prompt, *tokens], VOCAB_SIZE, VOCAB_SIZE).top
            if token not in ends or length > params.min_tokens
        ]
        order = sorted(
            range(len(found)),
            key=lambda i: (-found[i][0], [t for _, t in running].index(found[i][1][:-1]), found[i][1][-1]),
        )
        best = [found[i] for i in order]
        for score, tokens in best[: beams.width]:
            if tokens[-1] in ends or length == request.max_tokens:
                finish = Finish.STOP if tokens[-1] in ends else Finish.LENGTH
                ended.append((score / length**beams.length_penalty, tokens, finish))
        ended = sorted(ended, key=lambda each: -each[0])[: beams.width]
        running = [each for each in best if each[1][-1] not in ends][: beams.width]
        if len(ended) == beams.width:
            never = beams.early_stopping == "never" and beams.length_penalty > 0
            longest = request.max_tokens if never else length
            if beams.early_stopping is True or running[0][0] / longest**beams.length_penalty <= ended[-1][0]:
                break
    return [(tokens, finish) for _, tokens, finish in ended]


def alone(request: Request, index: int) -> tuple[list[int], Finish]:
    """What sample `index` says with nobody else around, by the rules of the words alone."""
    params = request.params
    sequence = Sequence(0, request, index, list(request.prompt))
    while True:
        ends = () if params.ignore_eos else request.eos_ids
        banned = (*ends, *(params.stop_token_ids or ())) if sequence.num_output < params.min_tokens else ()
        draw = Draw(params, (index,), sequence.tokens, sequence.num_prompt, banned)
        token = choose_token(draw, index, VOCAB_SIZE)
        sequence.tokens.append(token)
        finish = sequence.finish_after(token)
        if finish is not None:
            return sequence.tokens[sequence.num_prompt :], finish
