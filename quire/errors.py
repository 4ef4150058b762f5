"""The tree of everything that can go wrong, and the one way to say it.

    QuireError                      what, got, allowed, hint; exit code 1
    ├─ RequestError                 the caller can mend it: HTTP 400 unless a child says otherwise
    │   ├─ ContextLengthExceeded    prompt (and answer) do not fit the model's context
    │   ├─ UnknownField             a field nobody knows, with the nearest known name
    │   ├─ UnsupportedField         a field OpenAI knows, that would change the output, and that we lack
    │   ├─ ModelNotFound            404
    │   ├─ RouteNotFound            404
    │   ├─ MethodNotAllowed         405
    │   ├─ NothingAllowed           what was asked for together leaves no token to go on with
    │   ├─ BodyTooLarge             413
    │   ├─ TargetTooLong            414: the path and query of the request line
    │   ├─ HeadTooLarge             431: too many or too long headers
    │   ├─ TooSlow                  408: head or body did not come in time
    │   └─ Unauthorized             401
    ├─ StartError                   the operator can mend it: exit code 2, no half-started server
    │   ├─ InvalidSetting           an option out of range, or two that contradict each other
    │   ├─ UnsupportedModel         an architecture or config value we do not run
    │   ├─ BrokenCheckpoint         files missing, truncated, or of the wrong shape
    │   └─ NotEnoughMemory          the plan does not fit the machine
    ├─ ServiceError                 nobody's fault, or ours: HTTP 503 unless a child says otherwise
    │   ├─ Overloaded               429: too much is waiting
    │   │   ├─ QueueFull            too many prompt tokens are waiting
    │   │   ├─ KeyBusy              one key has too many requests inside
    │   │   ├─ BodiesFull           too many bytes of bodies are held
    │   │   ├─ WaitTooLong          the predicted wait is over the queue's bound
    │   │   ├─ DeadlineUnreachable  the predicted first token is after its deadline
    │   │   └─ DeadlineExceeded     the deadline passed in the queue
    │   ├─ EngineDead               the engine process is gone
    │   │   └─ KilledEngine         500: it dies of this request, which is not tried again
    │   ├─ TooManyConnections       more connections are open than may
    │   ├─ ShuttingDown             the server leaves; asked again, another one answers
    │   └─ GenerationFailed         500: this request's computation went wrong
    │       ├─ NotFinite            logits, keys or values came out infinite or NaN
    │       ├─ IdOutOfRange         a token outside the vocabulary was drawn
    │       ├─ StepFailed           its part of a step raises, where its neighbours' do not
    │       └─ Quarantined          its id is that of a request that ended so
    └─ InternalError                our own mistake: HTTP 500

Knows: how an error is worded. Does not know: HTTP bodies (`server/failures.py`) or who raised it.
"""

from __future__ import annotations


class QuireError(Exception):
    """A sentence with up to four parts: what is wrong, what was got, what is allowed, and a hint.

    `param` names the field or option at fault, `code` is OpenAI's machine-readable code where one exists.
    """

    exit_code = 1
    status = 500
    kind = "server_error"
    default_code: str | None = None

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        allowed: object = None,
        hint: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self.what, self.got, self.allowed, self.hint, self.param = what, got, allowed, hint, param
        self.code = code or self.default_code
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole sentence: `what; got G; allowed: A. hint`."""
        parts = [self.what.rstrip(".")]
        if self.got is not None:
            parts.append(f"got {shorten(self.got)}")
        if self.allowed is not None:
            parts.append(f"allowed: {shorten(self.allowed)}")
        sentence = "; ".join(parts) + "."
        return f"{sentence} {self.hint}" if self.hint else sentence


class RequestError(QuireError):
    """Something in a request that its sender can mend."""

    status = 400
    kind = "invalid_request_error"


class ContextLengthExceeded(RequestError):
    """The prompt, or prompt plus answer, is longer than the model's context."""

    default_code = "context_length_exceeded"


class UnknownField(RequestError):
    """A field that is neither ours nor OpenAI's."""

    default_code = "unknown_field"


class UnsupportedField(RequestError):
    """A field that exists in the API, would change the output, and is not implemented here."""

    default_code = "unsupported_field"


class ModelNotFound(RequestError):
    """The request names a model that is not served."""

    status = 404
    default_code = "model_not_found"


class RouteNotFound(RequestError):
    """No such path."""

    status = 404
    default_code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    default_code = "method_not_allowed"


class NothingAllowed(RequestError):
    """Bans, bad words, allowed ids and the form of an answer, each possible alone, leave no token to go on with."""

    default_code = "nothing_allowed"


class BodyTooLarge(RequestError):
    """The body is over the limit."""

    status = 413
    default_code = "body_too_large"


class TargetTooLong(RequestError):
    """The path and query of a request are over the limit."""

    status = 414
    default_code = "target_too_long"


class HeadTooLarge(RequestError):
    """The headers of a request are over a limit."""

    status = 431
    default_code = "head_too_large"


class TooSlow(RequestError):
    """The head or the body of a request did not come in time."""

    status = 408
    default_code = "too_slow"


class Unauthorized(RequestError):
    """No key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    default_code = "invalid_api_key"


class StartError(QuireError):
    """Something the operator can mend before the server starts."""

    exit_code = 2


class InvalidSetting(StartError):
    """An option out of range, or two that contradict each other."""


class UnsupportedModel(StartError):
    """A model that this version does not run."""


class BrokenCheckpoint(StartError):
    """Files that are missing, truncated, or do not fit their config."""


class NotEnoughMemory(StartError):
    """The plan needs more memory than the machine gives."""


class ServiceError(QuireError):
    """The service cannot answer now."""

    status = 503
    default_code = "service_unavailable"


class Overloaded(ServiceError):
    """Too much is waiting. `retry_after_s` says when to come back, `estimate_s` when a first token would have come.

    `cause` is what is counted.
    """

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    cause = "requests"

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        allowed: object = None,
        hint: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float = 1.0,
        estimate_s: float | None = None,
    ) -> None:
        super().__init__(what, got=got, allowed=allowed, hint=hint, param=param, code=code)
        self.retry_after_s, self.estimate_s = retry_after_s, estimate_s


class QueueFull(Overloaded):
    """More prompt tokens wait than may."""

    cause = "tokens"


class KeyBusy(Overloaded):
    """One key has as many requests inside as it may."""

    cause = "key"


class BodiesFull(Overloaded):
    """All requests together hold as many bytes of bodies as they may."""

    cause = "bodies"


class WaitTooLong(Overloaded):
    """The predicted wait is over the queue's bound."""

    cause = "wait"


class DeadlineUnreachable(Overloaded):
    """The predicted first token is after the request's deadline."""

    default_code = "deadline_unreachable"
    cause = "deadline_unreachable"


class DeadlineExceeded(Overloaded):
    """The deadline of the first token passed while the request waited."""

    default_code = "deadline_exceeded"
    cause = "deadline_exceeded"


class EngineDead(ServiceError):
    """The engine process has gone away."""

    default_code = "engine_dead"


class ShuttingDown(ServiceError):
    """The server was told to leave before this request was answered. `retry_after_s` says when to ask again."""

    default_code = "shutting_down"
    retry_after_s = 1.0


class KilledEngine(EngineDead):
    """Engine processes died while they computed this request, the last one while it computed nothing else."""

    status = 500
    default_code = "request_killed_engine"


class TooManyConnections(ServiceError):
    """As many connections are open as may. `retry_after_s` says when to try again."""

    default_code = "too_many_connections"
    retry_after_s = 1.0


class GenerationFailed(ServiceError):
    """The computation of one request went wrong; its neighbours go on."""

    status = 500
    default_code = "generation_failed"


class NotFinite(GenerationFailed):
    """Infinity or NaN in what the model made of this request: nothing that follows from it can be trusted."""

    default_code = "not_finite"


class IdOutOfRange(GenerationFailed):
    """A token came out that is not in the vocabulary."""

    default_code = "id_out_of_range"


class StepFailed(GenerationFailed):
    """The computation of this request alone raises."""

    default_code = "step_failed"


class Quarantined(GenerationFailed):
    """A request of this id could not be computed before; it is not tried again."""

    default_code = "quarantined"


class InternalError(QuireError):
    """A mistake of ours that was noticed."""

    default_code = "internal_error"


def shorten(value: object, limit: int = 200) -> str:
    """`value` as text of at most `limit` characters, so that a message never repeats a whole body."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
