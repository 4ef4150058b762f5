"""Memory that kernels lend each other within one launch or two: partial sums, and counters that are 0 between launches.

Knows: sizes. Does not know: which kernel writes what.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_COUNTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Workspace:
    """`floats` float32, `counters` int32, all 0 whenever no kernel runs. One for each stream of work, never shared."""

    floats: Tensor
    counters: Tensor

    def take(self, num_floats: int) -> Tensor:
        """The first `num_floats` floats; MemoryError where there are fewer: the plan did not foresee this step."""
        if num_floats > self.floats.numel():
            raise MemoryError(
                f"A kernel needs more scratch memory than was planned: got {num_floats} float32, allowed "
                f"{self.floats.numel()}. Hint: plan for the largest step (`attention.num_floats`, `linear.num_floats`)."
            )
        return self.floats[:num_floats]


def make_workspace(device: torch.device, num_floats: int) -> Workspace:
    """One with room for `num_floats`."""
    return Workspace(
        torch.empty(num_floats, dtype=torch.float32, device=device),
        torch.zeros(NUM_COUNTERS, dtype=torch.int32, device=device),
    )
