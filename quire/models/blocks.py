"""What the families share: the decoder block, and the model around it.

Knows: the order of layers. Does not know: what a family adds, requests, files.

Legend: T tokens, H hidden, R chosen rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quire.layers.attention import Attention, Heads
from quire.layers.embedding import Embedding, load_embedding_and_head
from quire.layers.forward import Forward, Int32
from quire.layers.linear import Linear
from quire.layers.mlp import MLP
from quire.layers.norm import Norm
from quire.layers.source import Float32, Source
from quire.model_spec import ModelSpec
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.gather import gather_rows
from quire.ops.refine import Wanted


@dataclass(frozen=True, slots=True)
class Block:
    """x += attention(norm(x)); x += mlp(norm(x))."""

    input_norm: Norm
    attention: Attention
    post_norm: Norm
    mlp: MLP

    def __call__(self, x_TH: Float32, forward: Forward) -> None:
        """Updates `x_TH` in place, in six launches."""
        self.attention(x_TH, self.input_norm, forward)
        self.mlp(x_TH, self.post_norm, forward)

    def ends(self, x_TH: Float32, forward: Forward, seqs_R: Int32) -> Float32:
        """x_RH after the block of the last rows of sequences `seqs_R`; of all others only K and V are computed."""
        if len(seqs_R) == len(x_TH):
            self(x_TH, forward)
            return x_TH
        q_TQD = self.attention.store(x_TH, self.input_norm, forward)
        if len(seqs_R) == 0:
            return x_TH[:0]
        arena, device = forward.arena, forward.device
        rows_R, step = forward.ends(seqs_R)
        x_RH = arena.view("ends", (len(rows_R), x_TH.shape[1]))
        q_RQD = arena.view("qkv", (len(rows_R), *q_TQD.shape[1:]))  # q, k and v of the step are where they belong
        gather_rows(device, x_TH, rows_R, x_RH)
        gather_rows(device, _flat(q_TQD), rows_R, _flat(q_RQD))
        self.attention.attend(q_RQD, x_RH, step)
        self.mlp(x_RH, self.post_norm, step)
        return x_RH


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder. Arrays it returns are arena views, valid until the same method is called again."""

    spec: ModelSpec
    embedding: Embedding
    blocks: tuple[Block, ...]
    norm: Norm
    head: Linear

    def hidden(self, forward: Forward) -> Float32:
        """hidden_TH after the last block, before the final norm. K and V of every row are in the cache afterwards."""
        x_TH = forward.arena.view("hidden", (len(forward.ids_T), self.spec.hidden_size))
        self.embedding(forward.device, forward.ids_T, x_TH)
        for block in self.blocks:
            block(x_TH, forward)
        return x_TH

    def ends(self, forward: Forward, seqs_R: Int32) -> Float32:
        """hidden_RH: those rows of `hidden` that are the last ones of sequences `seqs_R`, the same bits.

        What the last block makes of any other row nobody reads, so that it computes its K and V alone.
        """
        x_TH = forward.arena.view("hidden", (len(forward.ids_T), self.spec.hidden_size))
        self.embedding(forward.device, forward.ids_T, x_TH)
        for block in self.blocks[:-1]:
            block(x_TH, forward)
        return self.blocks[-1].ends(x_TH, forward, seqs_R)

    def logits(self, forward: Forward, hidden_TH: Float32, rows_R: Int32) -> Float32:
        """logits_RV float32 of the chosen rows; only they are normalised and multiplied by the head."""
        chosen_RH = forward.arena.view("chosen", (len(rows_R), self.spec.hidden_size))
        logits_RV = forward.arena.view("logits", (len(rows_R), self.spec.vocab_size))
        gather_rows(forward.device, hidden_TH, rows_R, chosen_RH)
        self.head(forward.device, chosen_RH, logits_RV, norm=self.norm)
        return logits_RV

    @property
    def is_rough(self) -> bool:
        """Whether logits below a row's best hundreds are rough until `refine` was asked for them."""
        return self.head.refine is not None

    def refine(self, device: Device, arena: Arena, logits_RV: Float32, wanted: Wanted, mask_RW: Int32 | None) -> None:
        """Makes more of the logits exact that `logits` gave last: `ops.refine.refine`."""
        chosen_RH = arena.again("chosen", (len(logits_RV), self.spec.hidden_size))
        self.head.refine(device, chosen_RH, self.head.weight, logits_RV, wanted, mask_RW, self.norm.parts)

    def forward(self, forward: Forward) -> Float32:
        """logits_RV of `forward.rows_R`; of every row where that is None."""
        hidden_TH = self.hidden(forward)
        if forward.rows_R is not None:
            return self.logits(forward, hidden_TH, forward.rows_R)
        logits_TV = forward.arena.view("logits", (len(hidden_TH), self.spec.vocab_size))
        self.head(forward.device, hidden_TH, logits_TV, norm=self.norm)
        return logits_TV

    def reserve(self, arena: Arena, num_tokens: int, num_rows: int) -> None:
        """Grow the arena for steps of `num_tokens` rows and `num_rows` logits once, so that no step grows it."""
        spec = self.spec
        for name, width in (("hidden", spec.hidden_size), ("ends", spec.hidden_size), *_widths(spec)):
            arena.view(name, (num_tokens, width))
        arena.view("chosen", (num_rows, spec.hidden_size))
        arena.view("logits", (num_rows, spec.vocab_size))


def _flat(x_TQD: Float32) -> Float32:
    return x_TQD.reshape(len(x_TQD), x_TQD.shape[1] * x_TQD.shape[2])


def _widths(spec: ModelSpec) -> tuple[tuple[str, int], ...]:
    """Buffers of attention and MLP and their floats a token."""
    qkv = spec.q_size + 2 * spec.kv_size
    return ("qkv", qkv), ("q", spec.q_size), ("mixed", spec.q_size), ("gate_up", 2 * spec.intermediate_size)


def load_decoder(spec: ModelSpec, source: Source, load_block: Callable[[int, str], Block]) -> Model:
    """The model with the checkpoint's usual names; `load_block(index, prefix)` is what a family draws."""
    embedding, head = load_embedding_and_head(source, spec.vocab_size, spec.hidden_size, spec.tied_head)
    blocks = tuple(load_block(index, f"model.layers.{index}") for index in range(spec.num_layers))
    return Model(spec, embedding, blocks, Norm.load(source, "model.norm", spec.hidden_size, spec.rms_norm_eps), head)


def heads_of(spec: ModelSpec) -> Heads:
    """The shape of every attention layer."""
    return Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim)
