"""Triton's interpreter, as far as these tests need it mended.

Knows: five faults of the interpreter of Triton 3.6, which the compiler does not have. Does not know: any kernel.

    rounding    float32 is cut to bfloat16 and float8 instead of rounded to nearest, ties to even
    dot         bfloat16 operands are multiplied as the integers that hold their bits
    cast        integers become bfloat16 as bits, not as numbers
    range       bounds that are tensors cannot be converted, by NumPy 2.4 and later
    speed       `triton.language` is patched anew for every call of a function within a kernel (3 ms); once is enough

The repairs stand in the interpreter's own objects, so they count for whatever runs there, and nothing else runs there.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

NUMPY_OF = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2, tl.bfloat16: torch.bfloat16}
TORCH_OF = {tl.float16: torch.float16, tl.float32: torch.float32, tl.float64: torch.float64, **NUMPY_OF}
BITS_OF = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def as_torch(data: Any, dtype: Any) -> torch.Tensor:
    """The floats that the interpreter holds in `data`, which for narrow types is an array of their bits."""
    bits = np.ascontiguousarray(data).view(BITS_OF[dtype.primitive_bitwidth])
    return torch.from_numpy(bits.copy()).view(TORCH_OF[dtype])


def convert(data: Any, source: Any, target: Any, rounding: Any = None) -> Any:
    """Bits of `target` for the floats of `source`: to nearest, ties to even, as a GPU converts; fp8 saturates."""
    wide = as_torch(data, source)
    if target == tl.float8e4nv:
        wide = torch.where(wide.isnan(), wide, wide.clamp(-448, 448))
    narrow = wide.to(TORCH_OF[target])
    return narrow.view(getattr(torch, f"uint{target.primitive_bitwidth}")).numpy()


def dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
    """a b + d: floats in float64, rounded once; integers exactly."""
    if not a.dtype.is_floating():
        product = a.data.astype(np.int64) @ b.data.astype(np.int64)
    else:
        product = (as_torch(a.data, a.dtype).double() @ as_torch(b.data, b.dtype).double()).numpy()
    return interpreter.TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)


def cast(self: Any, value: Any, target: Any, plain: Any) -> Any:
    """A number of one type as one of another, by way of float32 where the other is bfloat16."""
    if target.scalar == tl.bfloat16 and not value.dtype.scalar.is_floating():
        bits = convert(value.data.astype(np.float32), tl.float32, tl.bfloat16)
        return interpreter.TensorHandle(bits, tl.bfloat16)
    return plain(self, value, target)


def patched(patch: Any) -> Any:
    """What the interpreter does to Triton's library for one launch, for a kernel's own functions and for Triton's."""
    both = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})

    def patch_both(_fn: Any) -> Any:
        scope = patch(both)
        scope.set_attr(tl.tensor, "__index__", lambda self: int(self.handle.data.item()))
        return scope

    return patch_both


def mend(monkeypatch: Any) -> None:
    """Puts the repairs in place, until the monkeypatch ends."""
    rewrite = interpreter.InterpretedFunction.rewrite
    monkeypatch.setattr(interpreter, "_convert_float", convert)
    builder = interpreter.InterpreterBuilder
    monkeypatch.setattr(builder, "create_dot", dot)
    monkeypatch.setattr(builder, "cast_impl", functools.partialmethod(cast, plain=builder.cast_impl))
    monkeypatch.setattr(interpreter, "_patch_lang", patched(interpreter._patch_lang))
    monkeypatch.setattr(
        interpreter.InterpretedFunction, "__call__", lambda self, *args, **kwargs: rewrite(self)(*args, **kwargs)
    )
