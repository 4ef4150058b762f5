"""Token embedding and the head that turns rows into logits.

Knows: that a tied head is the embedding's own weight, held once. Does not know: the network between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quire.layers.linear import Linear
from quire.layers.source import Float32, Source
from quire.ops.device import Device
from quire.ops.embed import embed

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


@dataclass(frozen=True, slots=True)
class Embedding:
    """out[t] = weight[ids[t]]."""

    weight: Any

    def __call__(self, device: Device, ids_T: Any, out_TH: Float32) -> None:
        """Ids are int32 in 0..vocab_size - 1."""
        embed(device, ids_T, self.weight, out_TH)


def load_embedding_and_head(source: Source, vocab_size: int, hidden_size: int, tied: bool) -> tuple[Embedding, Linear]:
    """Both ends of the model. A tied checkpoint may store either name, or both if they are equal."""

    def load(name: str) -> Linear:
        return Linear.load(source, "", {name: vocab_size}, hidden_size, format=source.head_format)

    if not tied:
        return Embedding(load(EMBEDDING).weight), load(HEAD)
    has_head = source.has(f"{HEAD}.weight")
    only_head = has_head and not source.has(f"{EMBEDDING}.weight")
    if has_head and not only_head:
        source.same(f"{HEAD}.weight", f"{EMBEDDING}.weight", (vocab_size, hidden_size))
    shared = load(HEAD if only_head else EMBEDDING)
    return Embedding(shared.weight), shared
