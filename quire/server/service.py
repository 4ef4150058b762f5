"""What the routes need, in one frozen bundle. Clocks and randomness come in here, so that tests can fix them.

Knows: the engine's client, tokenizer, template, settings, names. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from quire.engine.client import EngineClient
from quire.errors import ModelNotFound
from quire.model_spec import GenerationDefaults, ModelSpec
from quire.observe.metrics import Metrics
from quire.plan import Plan
from quire.receipt import NO_RECEIPT, Receipt
from quire.server.door import Door
from quire.server.lifecycle import Lifecycle
from quire.server.public import NOTHING_PUBLIC, PublicPrefixes
from quire.server.receipts import fingerprint
from quire.server.request_log import RequestLog
from quire.server.speech import Spoken
from quire.settings import ServerSettings
from quire.tenancy.keys import KeyRing
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

ASIDE_CHARACTERS = 4096  # encoding this much takes about 1 ms; more would be felt by other streams
ASIDE_THREADS = 2
DEFAULT_NAME = "default"
T = TypeVar("T")


def _threads() -> Executor:
    return ThreadPoolExecutor(ASIDE_THREADS, "quire-text")


def _seed() -> int:
    return secrets.randbits(63)


def _this_second() -> int:
    return int(time.time())


def _fresh_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One served model. `names[0]` is what answers carry; `now` is steady seconds, `wall` seconds since 1970.

    `created` is when the server started, in seconds since 1970. `keys` is None where tenants have none; `public` is
    what they share nevertheless. `log` is None where requests are not written down. `own` are the parts of the receipt
    that the engine does not know.
    """

    client: EngineClient
    tokenizer: Tokenizer
    template: ChatTemplate
    plan: Plan
    spec: ModelSpec
    settings: ServerSettings
    names: tuple[str, ...]
    version: str
    folder: str = ""
    own: Receipt = NO_RECEIPT
    log: RequestLog | None = None
    keys: KeyRing | None = None
    public: PublicPrefixes = NOTHING_PUBLIC
    spoken: Spoken = field(default_factory=Spoken)
    defaults: GenerationDefaults = field(default_factory=GenerationDefaults)
    metrics: Metrics = field(default_factory=Metrics)
    door: Door = field(default_factory=Door)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    threads: Executor = field(default_factory=_threads)
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    seed: Callable[[], int] = _seed
    fresh_id: Callable[[], str] = _fresh_id
    created: int = field(default_factory=_this_second)

    @property
    def vocab_size(self) -> int:
        """Ids that the model has; the tokenizer may know fewer."""
        return self.spec.vocab_size

    @property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint: what has to be equal for equal seeds to give equal answers."""
        return fingerprint(self.version, self.receipt)

    @property
    def receipt(self) -> Receipt:
        """What the bits of an answer depend on."""
        return self.own if self.client.ready is None else self.client.ready.receipt | self.own

    def name_of(self, asked: str | None) -> str:
        """The served name behind a request's `model`; absent and `default` mean the first. Raises `ModelNotFound`."""
        if asked is None or asked == DEFAULT_NAME:
            return self.names[0]
        if asked not in self.names:
            allowed = ", ".join([*self.names, DEFAULT_NAME])
            raise ModelNotFound("this model is not served here", got=asked, allowed=allowed, param="model")
        return asked

    @property
    def max_inside(self) -> int:
        """Most requests running or waiting at once."""
        return self.plan.max_num_seqs + self.settings.max_waiting

    async def aside(self, num_characters: int, call: Callable[..., T], *arguments: object) -> T:
        """`call(*arguments)`, in a thread if it has much text to read."""
        if num_characters < ASIDE_CHARACTERS:
            return call(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)
