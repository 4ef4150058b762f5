"""Logged requests asked again: of an engine in this process, or of a server.

Knows: engines, one route of a server. Does not know: the log's file, what is made of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from quire.cli.folder_receipt import folder_receipt
from quire.cli.prepare import prepare
from quire.engine.build import Built, build_engine
from quire.engine.grammars import compile_with
from quire.errors import QuireError, StartError
from quire.receipt import NO_RECEIPT, Receipt
from quire.request import Request, SamplingParams
from quire.server.logged import LoggedJob, LoggedRequest, LoggedSample, Witness, asking_logprobs
from quire.settings import EngineSettings

TIMEOUT_S = 600.0
# What says how text is made of tokens, and what has another place in a body: it changes no token that was told.
NOT_SENT = frozenset(
    {"stop", "include_stop_str_in_output", "skip_special_tokens", "structured_outputs", "prompt_logprobs"}
)
Again = LoggedRequest | str  # an answer, or why there is none


class Asker(Protocol):
    """Whoever can be asked again."""

    receipt: Receipt

    def ask(self, logged: Sequence[LoggedRequest]) -> list[Again]:
        """All of them at once, each no further than it was told."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class Offline:
    """An engine in this process, started as the log says its server was, unless `settings` say otherwise."""

    def __init__(self, job: LoggedJob, model: str | None, settings: EngineSettings) -> None:
        """Raises `StartError`."""
        if model is None and not Path(job.folder).is_dir():
            raise StartError("the model that was served is not there any more", got=job.folder, hint="Name a --model.")
        prepared = prepare(model or job.folder, None, merged(settings, job.options))
        self._built: Built = build_engine(prepared.plan, prepared.folder)
        self.receipt = self._built.receipt | folder_receipt(prepared.folder)

    def ask(self, logged: Sequence[LoggedRequest]) -> list[Again]:
        """They run together, in whatever company that is."""
        asked = [_Asked(str(number), each) for number, each in enumerate(logged)]
        running: dict[str, _Asked] = {}
        for each in asked:
            try:
                if each.request.constraint is not None:
                    compile_with(self._built.grammars, each.request.constraint)
                self._built.engine.add(each.request, 0.0)
                running[each.request.id] = each
            except QuireError as problem:
                each.problem = problem.message
        while running:
            self._step(running)
        return [each.answer() for each in asked]

    def close(self) -> None:
        """End the engine's threads."""
        self._built.grammars.close()
        self._built.device.close()

    def _step(self, running: dict[str, _Asked]) -> None:
        engine = self._built.engine
        report = engine.step(0.0)
        for delta in report.deltas if report is not None else ():
            each = running.get(delta.request_id)
            if each is None:
                continue
            each.witness.hear(delta)
            each.problem = each.problem or (delta.error or "")
            if each.has_enough(delta.index) and delta.finish is None:
                engine.abort(each.request.id, delta.index, served=True)
            if delta.finish is not None or each.has_enough(delta.index):
                each.open.discard(delta.index)
            if not each.open:
                del running[each.request.id]


class _Asked:
    """One request on its way, and how much of each sample is wanted."""

    def __init__(self, request_id: str, logged: LoggedRequest) -> None:
        self.request: Request = asking_logprobs(replace(logged.request, id=request_id))
        self.witness = Witness(self.request)
        self.problem = ""
        self._wanted = [len(sample.ids) for sample in logged.samples]
        self.open = set(range(len(self._wanted)))

    def has_enough(self, index: int) -> bool:
        return self.witness.num_heard(index) >= max(self._wanted[index], 1)

    def answer(self) -> Again:
        if self.problem:
            return self.problem
        for index, count in enumerate(self._wanted):
            self.witness.told(index, min(count, self.witness.num_heard(index)))
        return self.witness.logged()


@dataclass(slots=True)
class OverHttp:
    """A server at `url`, asked one request at a time through /v1/completions."""

    url: str
    api_key: str | None
    receipt: Receipt = NO_RECEIPT

    def __post_init__(self) -> None:
        """Raises `StartError` where no server of ours answers."""
        told = self._call("GET", "/receipt", None)
        self.receipt = Receipt.of({part["name"]: part["value"] for part in told["parts"]})

    def ask(self, logged: Sequence[LoggedRequest]) -> list[Again]:
        """One after the other."""
        return [self._ask(each) for each in logged]

    def close(self) -> None:
        """Nothing is held."""

    def _ask(self, logged: LoggedRequest) -> Again:
        if logged.request.constraint is not None:
            return "a constrained answer; its grammar cannot be sent. Replay it without --url"
        if logged.request.beams is not None:
            return "a beam search. Replay it without --url"
        try:
            told = self._call("POST", "/v1/completions", body_of(logged))
        except StartError as problem:
            return problem.message
        choices = sorted(told["choices"], key=lambda choice: choice["index"])
        return LoggedRequest(
            logged.request, tuple([_sample(*pair) for pair in zip(choices, logged.samples, strict=True)])
        )

    def _call(self, method: str, path: str, body: Any) -> Any:
        import httpx

        root = self.url.rstrip("/").removesuffix("/v1")
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            answer = httpx.request(method, root + path, json=body, headers=key, timeout=TIMEOUT_S)
        except httpx.HTTPError as problem:
            raise StartError("the server does not answer", got=f"{root}: {type(problem).__name__}") from None
        if answer.status_code != 200:
            raise StartError("the server refused", got=f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()


def body_of(logged: LoggedRequest) -> dict[str, Any]:
    """A body for /v1/completions that draws the tokens that were told."""
    params = logged.request.params
    usual = SamplingParams()
    sent = {
        entry.name: value
        for entry in fields(params)
        if entry.name not in NOT_SENT and (value := getattr(params, entry.name)) != getattr(usual, entry.name)
    }
    always = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")  # a server has defaults of its own
    sent |= {name: getattr(params, name) for name in always}
    sent["max_tokens"] = params.max_tokens
    if all(sample.finish is None for sample in logged.samples):
        sent["max_tokens"] = max(1, *(len(sample.ids) for sample in logged.samples))
    sent["min_tokens"] = min(params.min_tokens, sent["max_tokens"])
    sent["logprobs"] = params.logprobs or 0
    return {"prompt": list(logged.request.prompt), "return_token_ids": True, **sent}


def _sample(choice: dict[str, Any], logged: LoggedSample) -> LoggedSample:
    """What a choice told, as far as it was told before."""
    ids, count = tuple(choice["token_ids"]), len(logged.ids)
    logprobs = tuple(choice["logprobs"]["token_logprobs"])[:count] if choice.get("logprobs") else (None,) * count
    return LoggedSample(ids[:count], logprobs, choice["finish_reason"] if len(ids) == count else None)


def merged(settings: EngineSettings, options: dict[str, Any]) -> EngineSettings:
    """The log's options where `settings` have none of their own."""
    usual = EngineSettings()
    logged = {name: value for name, value in options.items() if getattr(settings, name) == getattr(usual, name)}
    return replace(settings, **{**({"itl_target": 0.0} if settings.itl_target is None else {}), **logged})
