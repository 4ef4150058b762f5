"""Muon for matrices: momentum whose update is made nearly orthogonal, which learns faster than Adam at this size.

Knows one optimiser. After Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
https://kellerjordan.github.io/posts/muon/, from where the five Newton-Schulz steps and their coefficients are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(update_NRC: Tensor, num_steps: int = 5) -> Tensor:
    """Each of N matrices with its singular values brought near one."""
    a, b, c = NEWTON_SCHULZ
    transposed = update_NRC.shape[1] > update_NRC.shape[2]
    x = update_NRC.mT if transposed else update_NRC
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if transposed else x).float()


class Muon:
    """Matrices of one shape are updated together. `step` takes the learning rate: the schedule is the caller's."""

    def __init__(self, matrices: Iterable[Tensor], momentum: float = 0.95, weight_decay: float = 0.02) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self.groups = [(group, torch.zeros(len(group), *shape)) for shape, group in by_shape.items()]
        self.momentum = momentum
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for matrices, average in self.groups:
            gradients = torch.stack([matrix.grad for matrix in matrices])
            average.lerp_(gradients, 1 - self.momentum)
            updates = orthogonalised(gradients.lerp(average, self.momentum))
            scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
            for matrix, update in zip(matrices, updates, strict=True):
                matrix.mul_(1 - learning_rate * self.weight_decay).add_(update, alpha=-learning_rate * scale)
