"""Pieces to chunks, and chunks folded into the whole answer: the streamed and the whole answer cannot differ.

Knows: OpenAI's chat and completions shapes. Does not know: the engine, HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from msgspec import UNSET, Raw, UnsetType

from quire.errors import InternalError
from quire.request import Finish
from quire.server.generation import Piece
from quire.server.logprobs import TokenNames, chat_logprobs, prompt_logprobs, text_logprobs
from quire.server.shapes import (
    CallDelta,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    Chunk,
    Function,
    FunctionDelta,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    ToolCall,
    Usage,
    Whole,
)
from quire.server.translate import Job, ReplyPlan
from quire.text.formats.said import CallPart, Content, Said, Thought

CALLED = "tool_calls"  # the finish reason of an answer that ended by itself and holds calls


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
        prompt = UNSET if piece.choice else _prompt(self._plan, self._names, piece)  # it is told once, for all choices
        if piece.choice not in self._begun:
            prompt_ids = UNSET if self._begun else self._prompt_ids
            self._begun.add(piece.choice)
            role = ChatChunkChoice(piece.choice, ChatDelta("assistant", ""))
            told.append(self._chunk(role, usage, prompt_ids, prompt))
        elif prompt is not UNSET:
            told.append(self._chunk(ChatChunkChoice(piece.choice, ChatDelta()), usage, prompt=prompt))
        told += [self._chunk(choice, usage) for choice in self._news(piece)]
        if piece.finish is not None:
            finish = CALLED if piece.has_calls and piece.finish is Finish.STOP else piece.finish.value
            told.append(self._chunk(ChatChunkChoice(piece.choice, ChatDelta(), None, finish), usage))
        return told

    def usage_chunk(self, usage: Usage) -> ChatChunk:
        """Usage without choices."""
        return self._chunk(None, usage)

    def fold(self, chunks: Iterable[Chunk], usage: Usage) -> ChatCompletion:
        """Texts and logprobs of each choice put together."""
        news: dict[int, list[ChatChunkChoice]] = {}
        prompt: list[Raw] = []
        for chunk in cast("Iterable[ChatChunk]", chunks):
            prompt += [] if chunk.prompt_logprobs is UNSET else chunk.prompt_logprobs
            for choice in chunk.choices:
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
            prompt_logprobs=UNSET if plan.prompt_top is None else prompt,
        )

    def _news(self, piece: Piece) -> list[ChatChunkChoice]:
        """What `piece` adds; its tokens go with the first of it."""
        plan = self._plan
        deltas = [self._delta(said, piece.choice) for said in piece.said]
        if not deltas and (piece.text or piece.tokens or (plan.token_ids and piece.ids)):
            deltas = [ChatDelta(content=piece.text)]
        if not deltas:
            return []
        logprobs = None if plan.num_top is None else chat_logprobs(self._names, piece.tokens, plan.num_top)
        first = ChatChunkChoice(piece.choice, deltas[0], logprobs, None, piece.ids if plan.token_ids else UNSET)
        return [first, *(ChatChunkChoice(piece.choice, delta) for delta in deltas[1:])]

    def _delta(self, said: Said, choice: int) -> ChatDelta:
        match said:
            case Content(text):
                return ChatDelta(content=text)
            case Thought(text):
                return ChatDelta(reasoning_content=text, reasoning=text)
            case CallPart(index, arguments, ""):
                return ChatDelta(tool_calls=(CallDelta(index, FunctionDelta(arguments)),))
        speech = self._plan.speech
        if speech is None:
            raise InternalError("a call was told in an answer that is all content")
        call_id = speech.call_id(self._plan.id, choice, said.index, said.name, said.id)
        function = FunctionDelta(said.arguments, said.name)
        return ChatDelta(tool_calls=(CallDelta(said.index, function, call_id, "function"),))

    def _chunk(
        self,
        choice: ChatChunkChoice | None,
        usage: Usage | UnsetType | None,
        prompt_ids: tuple[int, ...] | UnsetType = UNSET,
        prompt: list[Raw] | UnsetType = UNSET,
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
            prompt_logprobs=prompt,
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
        prompt = _prompt(plan, self._names, piece)
        if not (piece.text or piece.tokens or piece.finish or prompt or (plan.token_ids and piece.ids)):
            return []
        choice = TextChoice(
            piece.choice,
            piece.text,
            None if plan.num_top is None else text_logprobs(self._names, piece.tokens, plan.num_top),
            None if piece.finish is None else piece.finish.value,
            self._prompts[piece.choice // plan.n] if plan.token_ids and is_first else UNSET,
            piece.ids if plan.token_ids else UNSET,
            prompt,
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
    logprobs = [entry for each in news if each.logprobs is not None for entry in each.logprobs.content]
    return ChatChoice(
        index,
        _message([each.delta for each in news]),
        None if plan.num_top is None else ChatLogprobs(logprobs),
        news[-1].finish_reason,
        [token for each in news if each.token_ids is not UNSET for token in each.token_ids]
        if plan.token_ids
        else UNSET,
    )


def _message(deltas: Sequence[ChatDelta]) -> ChatMessage:
    content = "".join([each.content for each in deltas if each.content is not UNSET])
    thoughts = [each.reasoning for each in deltas if each.reasoning is not UNSET]
    thought = "".join(thoughts) if thoughts else UNSET
    parts = [call for each in deltas if each.tool_calls is not UNSET for call in each.tool_calls]
    if not parts:
        return ChatMessage("assistant", content, reasoning_content=thought, reasoning=thought)
    return ChatMessage("assistant", content or None, None, thought, thought, _calls(parts))


def _calls(parts: Sequence[CallDelta]) -> list[ToolCall]:
    """Each begins with its name and id; the arguments are all that was added."""
    arguments: dict[int, list[str]] = {}
    for part in parts:
        arguments.setdefault(part.index, []).append(part.function.arguments)
    return [
        ToolCall(part.id, Function(part.function.name, "".join(arguments[part.index])))
        for part in parts
        if part.id is not UNSET and part.function.name is not UNSET
    ]


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
        [entry for each in news if each.prompt_logprobs is not UNSET for entry in each.prompt_logprobs]
        if plan.prompt_top is not None
        else UNSET,
    )


def _prompt(plan: ReplyPlan, names: TokenNames, piece: Piece) -> list[Raw] | UnsetType:
    """`prompt_logprobs` of a piece that tells of the prompt, where they were asked for by that name."""
    if plan.prompt_top is None or not piece.prompt:
        return UNSET
    return prompt_logprobs(names, piece.prompt, plan.prompt_top)


def _joined(parts: Sequence[TextLogprobs]) -> TextLogprobs:
    return TextLogprobs(
        [token for part in parts for token in part.tokens],
        [value for part in parts for value in part.token_logprobs],
        [top for part in parts for top in part.top_logprobs],
        [offset for part in parts for offset in part.text_offset],
    )
