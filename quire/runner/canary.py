"""A fixed prompt whose outcome is known to the bit, computed again and again: a weight that changed shows in it.

    at start    hidden states of all its rows, logits of its last one -> digest        (decision 002: always the same)
    later       the same prompt, on the same pages -> the same digest, or something is not what it was

Its pages are its own: the pool, the prefix cache and all counts of steps are as if it had never run. Every byte of
every product takes part, and every norm; of rotary tables the first positions, of an embedding that is not tied the
rows of its tokens. A flip that rounding swallows on the way (the last bits of a weight before a bfloat16 activation)
may pass by unseen: the sums of `weight_sums.py` see that one too, but nothing that is not a weight.

Knows: a model and its machine. Does not know: when it is asked, or what follows.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np

from quire.models import Model
from quire.ops.open_device import make_kv_cache
from quire.runner.inputs import Machine, build_forward, on_device
from quire.step import Step, Work

NUM_TOKENS = 16  # a step of so many rows costs little more than one of a single row: both wait for the weights
SPREAD = 0x9E3779B1  # a prime near 2^32 over the golden ratio: ids far from each other


class Canary:
    """The prompt, its pages, and what came of it first."""

    name = "canary"

    def __init__(self, model: Model, machine: Machine) -> None:
        spec = model.spec
        num_blocks = -(-NUM_TOKENS // machine.block_size)
        kv = make_kv_cache(
            *(machine.device, spec.num_layers, num_blocks, machine.block_size, spec.num_kv_heads, spec.head_dim),
            machine.kv.dtype,
        )
        self._model, self._machine = model, replace(machine, kv=kv)
        tokens = [number * SPREAD % spec.vocab_size for number in range(NUM_TOKENS)]
        self._step = Step(0, (Work(0, tokens, 0, list(range(num_blocks))),))
        self.golden = ""
        self.digest()  # the first step of all pays for what is used once

    def begin(self) -> None:
        """What comes of it now is right."""
        self.golden = self.digest()

    def digest(self) -> str:
        """What comes of it now: SHA-256 (hex) of its hidden states' and its logits' bytes. One small step."""
        device = self._machine.device
        # always by our own kernels: another library's attention may be given up, which is no fault of the weights
        forward = replace(on_device(build_forward(self._step, self._machine), []), planned=None)
        hidden_TH = self._model.hidden(forward)
        last_R = device.put(np.array([NUM_TOKENS - 1], np.int32))
        states = np.ascontiguousarray(device.fetch(hidden_TH)).tobytes()
        logits = np.ascontiguousarray(device.fetch(self._model.logits(forward, hidden_TH, last_R))).tobytes()
        return sha256(states + logits).hexdigest()

    def examine(self) -> str | None:
        """What is wrong, None if nothing is."""
        found = self.digest()
        if found == self.golden:
            return None
        return f"a fixed prompt gives {found[:12]} where it gave {self.golden[:12]} at start"

    @property
    def num_parts(self) -> int:
        """It is computed at once."""
        return 1
