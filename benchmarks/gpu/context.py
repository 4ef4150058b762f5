"""What every part is given: the device, the size, and where its rows go.

Knows: the options of a run. Does not know: what a part does with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.rows import Writer

DEVICES = ("cuda", "torch:cpu", "triton:cpu")


@dataclass(frozen=True, slots=True)
class Context:
    """`tiny` is a size at which everything is run on a CPU in seconds; its figures mean nothing.

    `seconds` is for each thing that is timed.
    """

    device: str
    tiny: bool
    seconds: float
    rows: Writer

    @property
    def is_gpu(self) -> bool:
        """Whether figures are a GPU's."""
        return self.device == "cuda"

    @property
    def torch(self) -> Any:
        """The torch device."""
        import torch

        return torch.device("cuda" if self.is_gpu else "cpu")

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if self.is_gpu:
            import torch

            torch.cuda.synchronize()
