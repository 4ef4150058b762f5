"""A job as an HTTP answer. The stream is the only path: a whole answer is its chunks, folded.

The answer begins with the first piece, so that what goes wrong before it still has a status of its own; after that,
an error is an event in the stream. A reader that leaves, streaming or not, ends the job at once. A slow reader holds
back only itself: what it has not read yet is bounded by its answer's length, and by `SEND_TIMEOUT_S` in time.

Knows: server-sent events, disconnects. Does not know: tokens, routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial

from msgspec import UNSET, UnsetType
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quire.errors import Overloaded
from quire.limits import SEND_TIMEOUT_S
from quire.server import failures
from quire.server.chunks import Writer, writer
from quire.server.door import Visit
from quire.server.logged import FORM, LoggedJob, options_of
from quire.server.logprobs import TokenNames
from quire.server.presence import while_there
from quire.server.record import Record, record_of
from quire.server.service import Service
from quire.server.shapes import DONE, Chunk, Usage, encode, event
from quire.server.stream import Progress, open_progress, pieces
from quire.server.translate import Job

SEED_HEADER = "x-quire-seed"
MAX_SEEDS = 64  # of a job of more prompts none are told: a header has its limits
SSE_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Reply(Response):
    """Makes its job and runs it while it is sent; `make` gets the visit at which to ask for room."""

    def __init__(self, service: Service, make: Callable[[Visit], Awaitable[Job]]) -> None:
        super().__init__()
        self._service, self._make = service, make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the end, or until the reader is gone."""
        record = record_of(scope)
        with suppress(ClientDisconnect):
            await while_there(receive, self._work(record, send), partial(_note_gone, record))

    async def _work(self, record: Record, send: Send) -> None:
        with self._service.door.visit() as visit:
            with self._service.lifecycle.mortal():
                job = await self._make(visit)
            await _Telling(self._service, job, record, send).run()


class _Telling:
    """One answer on its way out."""

    def __init__(self, service: Service, job: Job, record: Record, send: Send) -> None:
        self._service, self._job, self._record, self._send = service, job, record, send
        self._progress = open_progress(service, job)
        self._writer: Writer = writer(job, TokenNames(service.tokenizer, job.plan.tokens_as_ids))
        record.model = job.plan.model

    async def run(self) -> None:
        """Send everything; the record has the figures, however it ends."""
        try:
            async with aclosing(self._chunks()) as chunks:
                await (self._stream(chunks) if self._job.plan.stream else self._whole(chunks))
        finally:
            _note(self._record, self._progress)
            self._log()

    def _log(self) -> None:
        service, plan = self._service, self._job.plan
        if service.log is not None:
            service.log.write(
                LoggedJob(
                    form=FORM,
                    id=self._record.request_id,
                    answer=plan.id,
                    at_s=service.wall(),
                    kind=plan.kind,
                    model=plan.model,
                    folder=service.folder,
                    options=options_of(service.plan),
                    fingerprint=plan.fingerprint or "",
                    receipt=dict(service.receipt.parts),
                    requests=tuple([witness.logged() for witness in self._progress.witnesses]),
                    ended=self._record.finish or "error",
                )
            )

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        """Chunks as they come. Usage in them as the plan says; a whole answer needs none before its end."""
        async with aclosing(pieces(self._service, self._progress)) as told:
            async for each in told:
                for piece in each:
                    if self._record.first_token_s is None and (piece.ids or piece.finish is not None):
                        self._record.first_token_s = self._service.now()
                    if piece.finish is not None:
                        self._record.finish = piece.finish.value
                    for chunk in self._writer.chunks(piece, self._usage()):
                        yield chunk

    def _usage(self) -> Usage | UnsetType | None:
        match self._job.plan.usage:
            case "every":
                return self._progress.usage()
            case "last":
                return None
        return UNSET

    async def _whole(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        with self._service.lifecycle.mortal():
            parts = [chunk async for chunk in chunks]
        whole = encode(self._writer.fold(parts, self._progress.usage()))
        answer = Response(whole, media_type="application/json")
        answer.raw_headers += seed_headers(self._job)
        await answer({"type": "http"}, _never, self._send)

    async def _stream(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        with self._service.lifecycle.mortal():
            first = await anext(chunks)
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + seed_headers(self._job)}
        )
        try:
            with self._service.lifecycle.mortal():
                await self._write(event(first))
                async for chunk in chunks:
                    await self._write(event(chunk))
        except TimeoutError:
            self._record.finish = "slow_reader"
            return
        except Exception as error:  # noqa: BLE001 - the answer has begun: all that is left is an event
            ours = failures.as_ours(error)
            self._record.finish = ours.code or "error"
            self._record.refused = ours.cause if isinstance(ours, Overloaded) else ""
            await self._write(b"data: " + failures.encode(ours) + b"\n\n", last=True)
            return
        if self._job.plan.usage != "none":
            await self._write(event(self._writer.usage_chunk(self._progress.usage())))
        await self._write(DONE, last=True)

    async def _write(self, data: bytes, last: bool = False) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})


def seed_headers(job: Job) -> list[tuple[bytes, bytes]]:
    """`x-quire-seed`: the seed of each prompt, given or drawn; asked with it, the same request gets the same answer."""
    seeds = [str(request.params.seed) for request in job.requests]
    return [(SEED_HEADER.encode(), ", ".join(seeds).encode())] if len(seeds) <= MAX_SEEDS else []


async def _never() -> dict[str, object]:
    raise NotImplementedError


def _note_gone(record: Record) -> None:
    record.finish = "disconnect"


def _note(record: Record, progress: Progress) -> None:
    usage = progress.usage()
    record.num_prompt_tokens = usage.prompt_tokens
    record.num_output_tokens = usage.completion_tokens
    record.num_cached_tokens = usage.prompt_tokens_details.cached_tokens
