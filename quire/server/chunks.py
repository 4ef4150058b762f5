"""Pieces to chunks, and chunks folded into the whole answer: the streamed and the whole answer cannot differ.

Knows: OpenAI's chat and completions shapes. Does not know: the engine, HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from msgspec import UNSET, UnsetType

from quire.server.generation import Piece
from quire.server.logprobs import TokenNames, chat_logprobs, text_logprobs
from quire.server.shapes import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    Chunk,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    Usage,
    Whole,
)
from quire.server.translate import Job, ReplyPlan


class Writer(Protocol):
    """What the two kinds of answers have in common."""

    def chunks(self, piece: Piece, usage: Usage | UnsetType | None) -> list[Chunk]:
        """The chunks that tell `piece`, in order."""
        ...

    def usage_chunk(self, usage: Usage) -> Chunk:
        """The last chunk, without choices."""
        ...

    def fold(self, chunks: Iterable[Chunk], usage: Usage) -> Whole:
        """All chunks as one answer."""
        ...


def writer(job: Job, names: TokenNames) -> Writer:
    """The writer for this kind of answer."""
    return ChatWriter(job, names) if job.plan.kind == "chat" else TextWriter(job, names)


class ChatWriter:
    """Chat: a chunk with the role first, then text, then a chunk with the reason for the end."""

    def __init__(self, job: Job, names: TokenNames) -> None:
        self._plan, self._names = job.plan, names
        self._prompt_ids = job.requests[0].prompt if job.plan.token_ids else UNSET
        self._begun: set[int] = set()

    def chunks(self, piece: Piece, usage: Usage | UnsetType | None) -> list[Chunk]:
        """Role, text and end of `piece`, each in a chunk of its own."""
        told: list[Chunk] = []
        if piece.choice not in self._begun:
            prompt_ids = UNSET if self._begun else self._prompt_ids
            self._begun.add(piece.choice)
            told.append(self._chunk(ChatChunkChoice(piece.choice, ChatDelta("assistant", "")), usage, prompt_ids))
        if piece.text or piece.tokens or (self._plan.token_ids and piece.ids):
            told.append(self._chunk(self._text(piece), usage))
        if piece.finish is not None:
            told.append(self._chunk(ChatChunkChoice(piece.choice, ChatDelta(), None, piece.finish.value), usage))
        return told

    def usage_chunk(self, usage: Usage) -> ChatChunk:
        """Usage without choices."""
        return self._chunk(None, usage)

    def fold(self, chunks: Iterable[Chunk], usage: Usage) -> ChatCompletion:
        """Texts and logprobs of each choice put together."""
        news: dict[int, list[ChatChunkChoice]] = {}
        for chunk in chunks:
            for choice in cast("tuple[ChatChunkChoice, ...]", chunk.choices):
                news.setdefault(choice.index, []).append(choice)
        plan = self._plan
        return ChatCompletion(
            plan.id,
            plan.created,
            plan.model,
            [_chat_choice(plan, index, news[index]) for index in sorted(news)],
            usage,
            system_fingerprint=plan.fingerprint,
            service_tier=plan.service_tier,
            prompt_token_ids=self._prompt_ids,
        )

    def _text(self, piece: Piece) -> ChatChunkChoice:
        plan = self._plan
        logprobs = None if plan.num_top is None else chat_logprobs(self._names, piece.tokens, plan.num_top)
        return ChatChunkChoice(
            piece.choice, ChatDelta(content=piece.text), logprobs, None, piece.ids if plan.token_ids else UNSET
        )

    def _chunk(
        self,
        choice: ChatChunkChoice | None,
        usage: Usage | UnsetType | None,
        prompt_ids: tuple[int, ...] | UnsetType = UNSET,
    ) -> ChatChunk:
        plan = self._plan
        return ChatChunk(
            plan.id,
            plan.created,
            plan.model,
            () if choice is None else (choice,),
            system_fingerprint=plan.fingerprint,
            service_tier=plan.service_tier,
            usage=usage,
            prompt_token_ids=prompt_ids,
        )


class TextWriter:
    """Completions: text and the reason for the end may share a chunk."""

    def __init__(self, job: Job, names: TokenNames) -> None:
        self._plan, self._names = job.plan, names
        self._prompts = [request.prompt for request in job.requests]
        self._begun: set[int] = set()

    def chunks(self, piece: Piece, usage: Usage | UnsetType | None) -> list[Chunk]:
        """One chunk, or none where there is nothing to tell."""
        plan = self._plan
        is_first = piece.choice not in self._begun
        self._begun.add(piece.choice)
        if not (piece.text or piece.tokens or piece.finish or (plan.token_ids and piece.ids)):
            return []
        choice = TextChoice(
            piece.choice,
            piece.text,
            None if plan.num_top is None else text_logprobs(self._names, piece.tokens, plan.num_top),
            None if piece.finish is None else piece.finish.value,
            self._prompts[piece.choice // plan.n] if plan.token_ids and is_first else UNSET,
            piece.ids if plan.token_ids else UNSET,
        )
        return [self._completion((choice,), usage)]

    def usage_chunk(self, usage: Usage) -> TextCompletion:
        """Usage without choices."""
        return self._completion((), usage)

    def fold(self, chunks: Iterable[Chunk], usage: Usage) -> TextCompletion:
        """Texts and logprobs of each choice put together."""
        news: dict[int, list[TextChoice]] = {}
        for chunk in chunks:
            for choice in cast("tuple[TextChoice, ...]", chunk.choices):
                news.setdefault(choice.index, []).append(choice)
        return self._completion(tuple([_text_choice(self._plan, i, news[i]) for i in sorted(news)]), usage)

    def _completion(self, choices: tuple[TextChoice, ...], usage: Usage | UnsetType | None) -> TextCompletion:
        plan = self._plan
        return TextCompletion(
            plan.id,
            plan.created,
            plan.model,
            choices,
            system_fingerprint=plan.fingerprint,
            service_tier=plan.service_tier,
            usage=usage,
        )


def _chat_choice(plan: ReplyPlan, index: int, news: Sequence[ChatChunkChoice]) -> ChatChoice:
    content = "".join([each.delta.content for each in news if each.delta.content is not UNSET])
    logprobs = [entry for each in news if each.logprobs is not None for entry in each.logprobs.content]
    return ChatChoice(
        index,
        ChatMessage("assistant", content),
        None if plan.num_top is None else ChatLogprobs(logprobs),
        news[-1].finish_reason,
        [token for each in news if each.token_ids is not UNSET for token in each.token_ids]
        if plan.token_ids
        else UNSET,
    )


def _text_choice(plan: ReplyPlan, index: int, news: Sequence[TextChoice]) -> TextChoice:
    return TextChoice(
        index,
        "".join([each.text for each in news]),
        None if plan.num_top is None else _joined([each.logprobs for each in news if each.logprobs is not None]),
        news[-1].finish_reason,
        news[0].prompt_token_ids,
        tuple([token for each in news if each.token_ids is not UNSET for token in each.token_ids])
        if plan.token_ids
        else UNSET,
    )


def _joined(parts: Sequence[TextLogprobs]) -> TextLogprobs:
    return TextLogprobs(
        [token for part in parts for token in part.tokens],
        [value for part in parts for value in part.token_logprobs],
        [top for part in parts for top in part.top_logprobs],
        [offset for part in parts for offset in part.text_offset],
    )
