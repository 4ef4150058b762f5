"""How the numbers of a weight matrix are stored, and how many bytes that is.

Knows: number formats, groups and the panels of the packed layout. Does not know: which matrix, who reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS = {"bfloat16": 16, "float16": 16, "float32": 32, "int8": 8, "fp8": 8, "int4": 4, "int4x2": 8}
GROUP_SIZES = (32, 64, 128)  # inputs that share a scale; 0 is the whole row
PANEL = 48  # outputs that are packed side by side; the last panel is filled up


@dataclass(frozen=True, slots=True)
class Precision:
    """`dtype` is a key of `BITS`. `group_size` inputs share a scale: 0 is all of a row (int8, int4, fp8).

    int4x2 is two planes of 4 bits with one scale a row, of which a product reads one, and the other of few outputs."""

    dtype: str
    group_size: int = 0
    symmetric: bool = True

    @property
    def is_quantized(self) -> bool:
        """Whether there are scales."""
        return self.dtype in ("int8", "int4", "fp8", "int4x2")

    @property
    def tag(self) -> str:
        """Short and unique, for names: bfloat16, int8-g128, int4-g32a."""
        groups = f"-g{self.group_size}" if self.group_size else ""
        return f"{self.dtype}{groups}{'' if self.symmetric else 'a'}"

    def packed_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Bytes of a packed matrix, which are (but of int4x2) those that one product reads (on a GPU, where no
        panel is filled up, up to 47 rows less)."""
        num_panels = -(-num_outputs // PANEL)
        if self.dtype == "int4x2":
            return num_panels * _HIGH._quantized_panel_bytes(num_inputs) + num_outputs * (_low_bytes(num_inputs) + 2)
        if self.dtype == "float32":
            return num_panels * PANEL * num_inputs * 4
        if self.dtype in ("bfloat16", "float16"):
            return num_panels * PANEL * _up(num_inputs, 2) * 2
        return num_panels * self._quantized_panel_bytes(num_inputs)

    def read_bytes(self, num_outputs: int, num_inputs: int, num_rows: int = 1) -> int:
        """Bytes that a product reads: `packed_bytes`, but of int4x2 the high plane and the low one of each row's best
        outputs, counted as the panels that they are the best of (they are some more), no two rows' the same."""
        if self.dtype != "int4x2":
            return self.packed_bytes(num_outputs, num_inputs)
        num_panels = -(-num_outputs // PANEL)
        best = num_best_panels(num_outputs)
        num_best = num_outputs if best >= num_panels else min(num_rows * best, num_outputs)
        return num_panels * _HIGH._quantized_panel_bytes(num_inputs) + num_best * (_low_bytes(num_inputs) + 2)

    def __str__(self) -> str:
        if self.dtype == "int4x2":
            return "int4x2, two planes of 4 bits, one scale a row"
        if not self.is_quantized:
            return self.dtype
        groups = f"groups of {self.group_size}" if self.group_size else "one scale a row"
        return f"{self.dtype}, {groups}{'' if self.symmetric else ', asymmetric'}"

    def _quantized_panel_bytes(self, num_inputs: int) -> int:
        """For each group its numbers, then a scale (and an offset, when asymmetric) of two bytes for every output."""
        length = self.group_size or num_inputs
        num_groups = -(-num_inputs // length)
        numbers = (num_groups - 1) * length + _up(num_inputs - (num_groups - 1) * length, 8)
        scales = num_groups * (2 if self.symmetric else 4)
        return _up(PANEL * (numbers * BITS[self.dtype] // 8 + scales), 64)


_HIGH = Precision("int4")


def num_best_panels(num_outputs: int) -> int:
    """Panels whose best outputs are read in full, as `kernels/cpu/qplanes.h` says."""
    return max(64, -(-num_outputs // PANEL) // 6)


def _low_bytes(num_inputs: int) -> int:
    return _up(num_inputs, 128) // 2


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
