"""The pieces of a whole job as they come, from one engine request or from several at once.

Knows: the engine's client, generations. Does not know: chunks, HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from msgspec import UNSET, UnsetType

from quire.engine.client import EngineClient
from quire.request import Request
from quire.server.generation import Generation, Piece
from quire.server.logged import Witness, asking_logprobs
from quire.server.service import Service
from quire.server.several import best
from quire.server.shapes import OutputDetails, PromptDetails, Usage
from quire.server.translate import Job, all_prompt_ids
from quire.step import Delta

BUFFERED_PIECES = 64  # between several prompts' streams and one reader
Pieces = AsyncGenerator[list[Piece], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """The generations of a job, and what they add up to. `witnesses`, one for each, are there where a log is kept."""

    job: Job
    generations: tuple[Generation, ...]
    witnesses: tuple[Witness, ...] = ()

    def usage(self) -> Usage:
        """Tokens until now."""
        num_prompt = all_prompt_ids(self.job.requests)
        num_output = sum(generation.num_tokens for generation in self.generations)
        num_cached = sum(generation.num_cached for generation in self.generations)
        speech = self.job.plan.speech
        details: OutputDetails | UnsetType = UNSET
        if speech is not None and speech.form.has_reasoning:
            details = OutputDetails(sum(generation.num_thought for generation in self.generations))
        return Usage(num_prompt, num_output, num_prompt + num_output, PromptDetails(num_cached), details)


def open_progress(service: Service, job: Job) -> Progress:
    """Generations that have not begun."""
    plan = job.plan
    return Progress(
        job,
        tuple(
            Generation(
                request,
                service.tokenizer,
                first_choice=number * plan.n,
                echo=None if plan.echoes is None else plan.echoes[number],
                prompt_only=plan.prompt_only,
                speech=plan.speech,
            )
            for number, request in enumerate(job.requests)
        ),
        () if service.log is None else tuple([Witness(request) for request in job.requests]),
    )


def pieces(service: Service, progress: Progress) -> Pieces:
    """Lists of pieces, one for each delta that told something. Closing it aborts what still runs."""
    n = progress.job.plan.n
    witnesses = progress.witnesses or (None,) * len(progress.generations)
    streams = []
    for generation, witness in zip(progress.generations, witnesses, strict=True):
        stream = _one(service, generation, witness)
        streams.append(stream if generation.request.params.n == n else best(stream, generation.first_choice, n))
    return streams[0] if len(streams) == 1 else _merged(streams)


async def _one(service: Service, generation: Generation, witness: Witness | None) -> Pieces:
    """Samples that ended at a stop string are aborted; leaving the stream aborts whatever is left of the request."""
    gaps = Gaps(service.metrics.on_token_gap, service.now)
    request = generation.request if witness is None else asking_logprobs(generation.request)
    async with aclosing(_deltas(service.client, request)) as deltas:
        async for delta in deltas:
            gaps.note(delta)
            told = generation.feed(delta)
            if witness is not None:
                witness.hear(delta)
                for piece in told:
                    witness.told(piece.choice - generation.first_choice, len(piece.ids))
            if told:
                yield told
            if delta.finish is None and not generation.goes_on(delta.index):
                service.client.abort(generation.request.id, delta.index, served=True)
            if generation.is_done:
                return


def _deltas(client: EngineClient, request: Request) -> AsyncGenerator[Delta, None]:
    return cast("AsyncGenerator[Delta, None]", client.stream(request))


async def _merged(streams: Sequence[Pieces]) -> Pieces:
    """Pieces of several streams in the order in which they come; the first error ends them all."""
    news: asyncio.Queue[list[Piece] | BaseException | None] = asyncio.Queue(BUFFERED_PIECES)
    tasks = [asyncio.create_task(_pump(stream, news)) for stream in streams]
    num_open = len(tasks)
    try:
        while num_open:
            told = await news.get()
            if isinstance(told, BaseException):
                raise told
            num_open -= told is None
            if told is not None:
                yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(stream: Pieces, news: asyncio.Queue[list[Piece] | BaseException | None]) -> None:
    async with aclosing(stream):
        try:
            async for told in stream:
                await news.put(told)
        except Exception as error:  # noqa: BLE001 - it is raised again where the pieces are read
            await news.put(error)
        else:
            await news.put(None)


class Gaps:
    """Seconds between consecutive tokens of each sample, told to an observer."""

    def __init__(self, observe: Callable[[float], None], now: Callable[[], float]) -> None:
        self._observe, self._now = observe, now
        self._last: dict[int, float] = {}

    def note(self, delta: Delta) -> None:
        """Take in one delta; several tokens at once share their gap."""
        if not delta.tokens:
            return
        now = self._now()
        before = self._last.get(delta.index)
        self._last[delta.index] = now
        if before is not None:
            for _ in delta.tokens:
                self._observe((now - before) / len(delta.tokens))
