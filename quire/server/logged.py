"""A line of the request log: what was asked as the engine got it, what it depended on, what came of it.

    {"form": 1, "id": ..., "receipt": {...}, "requests": [{"request": {...}, "samples": [{"ids": [...], ...}]}]}

Numbers are exact: JSON's floats are written so that they read back as they were.

Knows: the line's form. Does not know: files, who asks again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from quire.plan import Plan
from quire.receipt import Receipt
from quire.request import Finish, Request
from quire.step import Delta

FORM = 1  # goes up when a line's meaning changes
OF_THE_ENGINE = (Finish.STOP, Finish.LENGTH)


@dataclass(frozen=True, slots=True)
class LoggedSample:
    """What was told of one sample: ids and their logprobs (natural log; None where there was none).

    `finish` is the engine's own reason to end after these ids; None where it was ended from outside: by a stop string,
    by the end of a call, or because nobody waited any more.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float | None, ...] = ()
    finish: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One prompt. `request` has every default resolved, its seed, and nothing that says who asked."""

    request: Request
    samples: tuple[LoggedSample, ...]
    prompt_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedJob:
    """One HTTP request. `id` is its x-request-id, `answer` the id of its answer; `at_s` is its end, seconds since 1970.

    `ended` is its finish reason, or what went wrong. `folder` and `options` are how its server was started.
    """

    form: int
    id: str
    answer: str
    at_s: float
    kind: str
    model: str
    folder: str
    options: dict[str, Any]
    fingerprint: str
    receipt: dict[str, str]
    requests: tuple[LoggedRequest, ...]
    ended: str = ""

    @property
    def whole_receipt(self) -> Receipt:
        """The receipt as it was."""
        return Receipt.of(self.receipt)


@dataclass(slots=True)
class Witness:
    """Notes what becomes of one request. Tokens that came after the end that was told are not part of the answer."""

    request: Request
    _ids: dict[int, list[int]] = field(default_factory=dict)
    _logprobs: dict[int, list[float | None]] = field(default_factory=dict)
    _finish: dict[int, str] = field(default_factory=dict)
    _num_told: dict[int, int] = field(default_factory=dict)
    _prompt: list[float] = field(default_factory=list)

    def hear(self, delta: Delta) -> None:
        """Take in what the engine said."""
        self._ids.setdefault(delta.index, []).extend(delta.tokens)
        unknown = [None] * (len(delta.tokens) - len(delta.logprobs))
        self._logprobs.setdefault(delta.index, []).extend([*[entry.logprob for entry in delta.logprobs], *unknown])
        self._prompt += [entry.logprob for entry in delta.prompt_logprobs]
        if delta.finish in OF_THE_ENGINE:
            self._finish[delta.index] = delta.finish.value

    def num_heard(self, index: int) -> int:
        """Tokens of sample `index` until now."""
        return len(self._ids.get(index, ()))

    def told(self, index: int, num_tokens: int) -> None:
        """So many more tokens of sample `index` were part of the answer."""
        self._num_told[index] = self._num_told.get(index, 0) + num_tokens

    def logged(self) -> LoggedRequest:
        """What has been noted."""
        samples = tuple([self._sample(index) for index in range(self.request.params.n)])
        return LoggedRequest(anonymous(self.request), samples, tuple(self._prompt))

    def _sample(self, index: int) -> LoggedSample:
        count, ids = self._num_told.get(index, 0), self._ids.get(index, [])
        logprobs, finish = self._logprobs.get(index, []), self._finish.get(index)
        return LoggedSample(tuple(ids[:count]), tuple(logprobs[:count]), finish if count == len(ids) else None)


def asking_logprobs(request: Request) -> Request:
    """The request with the chosen tokens' logprobs, so that they can be compared; that changes none of its bits."""
    if request.params.logprobs is not None:
        return request
    return replace(request, params=replace(request.params, logprobs=0))


def anonymous(request: Request) -> Request:
    """The request without what it does not depend on: who asked, and how soon it was to be served."""
    constraint = None if request.constraint is None else replace(request.constraint, owner="")
    return replace(
        request,
        cache_salt=b"",
        num_public_tokens=0,
        tenant="",
        weight=1.0,
        priority=0,
        flex=False,
        deadline_s=None,
        leads=True,
        constraint=constraint,
    )


def options_of(plan: Plan) -> dict[str, Any]:
    """The engine's options that can change an answer, as `EngineSettings` takes them."""
    options: dict[str, Any] = {
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "kv_cache_dtype": plan.kv_dtype,
        "max_model_len": plan.max_model_len,
    }
    if plan.quantization != "none":
        options["quantization_group_size"] = plan.precision.group_size
    if plan.dtype != "float32":
        head = plan.head_precision
        options["head_quantization"] = head.dtype if head.is_quantized else "none"
    return options


def encode(job: LoggedJob) -> bytes:
    """One line with its end."""
    return msgspec.json.encode(job) + b"\n"


def decode(line: bytes) -> LoggedJob:
    """Raises ValueError for a line that is none of ours."""
    job = msgspec.json.decode(line, type=LoggedJob)
    if job.form != FORM:
        raise ValueError(f"a line of form {job.form}, and this release reads form {FORM}")
    return job
