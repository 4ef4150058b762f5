"""How the numbers of a weight matrix are stored, and how many bytes that is.

Knows: number formats, groups and the panels of the packed layout. Does not know: which matrix, who reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS = {"bfloat16": 16, "float16": 16, "float32": 32, "int8": 8, "fp8": 8, "int4": 4}
GROUP_SIZES = (32, 64, 128)  # inputs that share a scale; 0 is the whole row
PANEL = 48  # outputs that are packed side by side; the last panel is filled up


@dataclass(frozen=True, slots=True)
class Precision:
    """`dtype` is a key of `BITS`. `group_size` inputs share a scale: 0 is all of a row (int8, int4, fp8)."""

    dtype: str
    group_size: int = 0
    symmetric: bool = True

    @property
    def is_quantized(self) -> bool:
        """Whether there are scales."""
        return self.dtype in ("int8", "int4", "fp8")

    @property
    def tag(self) -> str:
        """Short and unique, for names: bfloat16, int8-g128, int4-g32a."""
        groups = f"-g{self.group_size}" if self.group_size else ""
        return f"{self.dtype}{groups}{'' if self.symmetric else 'a'}"

    def packed_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Bytes of a packed matrix, which are those that one product reads (on a GPU, where no panel is filled up, up
        to 47 rows less)."""
        num_panels = -(-num_outputs // PANEL)
        if self.dtype == "float32":
            return num_panels * PANEL * num_inputs * 4
        if self.dtype in ("bfloat16", "float16"):
            return num_panels * PANEL * _up(num_inputs, 2) * 2
        return num_panels * self._quantized_panel_bytes(num_inputs)

    def __str__(self) -> str:
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


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
