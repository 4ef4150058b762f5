"""Knows: modelled devices by name: a model's shape on a machine's measured or published ceilings. Does not know: steps.

    fixed           weights read once a step, at SHARE of the memory's bandwidth, and HOST_S of launches
    token           beyond the knee: 2 operations a parameter, at SHARE of the arithmetic peak; below it hides behind
                    the reading
    context_token   keys and values of one position, read at SHARE of the bandwidth
    pair            4 operations a layer, query head and dimension (scores, and values), at SHARE of the peak

SHARE is what good kernels reach of a ceiling in practice; it changes a device's speed, and hardly any ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.scheduling.cost import Coefficients
from quire.sim.device import ModelledDevice

SHARE = 0.7
HOST_S = 1e-3
USABLE_SHARE = 0.9  # of the memory: weights and KV cache


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder in the numbers that a step's time depends on; two bytes a parameter and a value."""

    num_parameters: float
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def kv_token_bytes(self) -> int:
        """Keys and values of one position."""
        return 2 * 2 * self.num_layers * self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class NamedDevice:
    """`bandwidth` in bytes/s, `peak` in operations/s of bf16 (or fp16), memory in bytes; `source` of these."""

    shape: Shape
    bandwidth: float
    peak: float
    memory_bytes: float
    source: str

    @property
    def device(self) -> ModelledDevice:
        """Its law."""
        shape = self.shape
        read_s = 2 * shape.num_parameters / (SHARE * self.bandwidth)
        token_s = 2 * shape.num_parameters / (SHARE * self.peak)
        law = Coefficients(
            fixed_s=HOST_S + read_s,
            extra_token_s=token_s,
            context_token_s=shape.kv_token_bytes / (SHARE * self.bandwidth),
            pair_s=4 * shape.num_layers * shape.num_heads * shape.head_dim / (SHARE * self.peak),
        )
        return ModelledDevice(law, knee_tokens=round(read_s / token_s))

    @property
    def kv_bytes(self) -> int:
        """Memory that is left for keys and values."""
        return int(USABLE_SHARE * self.memory_bytes - 2 * self.shape.num_parameters)


LLAMA_8B = Shape(8.03e9, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128)
OPT_13B = Shape(12.85e9, num_layers=40, num_heads=40, num_kv_heads=40, head_dim=128)
DEVICES = {
    "h200-llama-3.1-8b": NamedDevice(
        LLAMA_8B, 4.3e12, 790e12, 141e9, "H200: a device copy and a bf16 product of large matrices, measured"
    ),
    "a100-40gb-opt-13b": NamedDevice(
        OPT_13B, 1.555e12, 312e12, 40e9, "A100 40 GB SXM: data sheet; the pair on which Kwon et al. 2023 measured"
    ),
}
