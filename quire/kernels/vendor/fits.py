"""Whether FlashInfer can compute a model's attention here: told from what is known, never tried out.

Knows: what its paged kernels take, by its documentation from 0.4 to 0.6. Does not know: whether it is fast.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from quire.attention_shape import AttentionShape

OLDEST = (0, 4)
LEAST_CAPABILITY = (8, 0)
FLOATS = ("bfloat16", "float16")
HEAD_DIMS = (64, 128, 256)
FEW_ROWS = 2  # query heads of a kv head up to which its decode kernel without tensor cores is the right one
HOPPER = 9


def obstacle(shape: AttentionShape, dtype: torch.dtype, version: str, capability: tuple[int, int] | None) -> str:
    """Why it cannot be; empty where it can. `capability` is the GPU's, None where there is no GPU to ask."""
    if numbers(version) < OLDEST:
        return f"flashinfer {version} is older than {'.'.join(map(str, OLDEST))}"
    if shape.kv_dtype not in FLOATS:
        return f"its pages are {' or '.join(FLOATS)}, and these are {shape.kv_dtype}"
    if dtype != getattr(torch, shape.kv_dtype):
        return f"its queries have the pages' type, and these are {str(dtype).removeprefix('torch.')}"
    if shape.head_dim not in HEAD_DIMS:
        return f"its heads are of {', '.join(map(str, HEAD_DIMS))}, and these are of {shape.head_dim}"
    if shape.num_heads % shape.num_kv_heads:
        return f"{shape.num_heads} query heads are no multiple of {shape.num_kv_heads} kv heads"
    if capability is not None and capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}"
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; zeros where there are none."""
    parts = [*version.split("+")[0].split("."), "", ""][:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def takes_tensor_cores(shape: AttentionShape) -> bool:
    """Whether single tokens go through its kernel with tensor cores, which takes any number of heads a kv head; the
    other one was compiled for 1, 2, 4 and 8, and is faster where there are few."""
    return shape.group > FEW_ROWS


def prompt_kernel(capability: tuple[int, int] | None) -> str:
    """Its kernel for prompts: "fa3" is Hopper's alone, "fa2" everyone's."""
    return "fa3" if capability is not None and capability[0] == HOPPER else "fa2"


def not_compiled(shape: AttentionShape, dtype: torch.dtype, capability: tuple[int, int] | None) -> list[str]:
    """Names of the modules that it would have to compile first, which takes nvcc and minutes.

    Raises what the library raises; AttributeError where it does not say.
    """
    jit: Any = importlib.import_module("flashinfer.jit")
    heads = (dtype, dtype, dtype, torch.int32, shape.head_dim, shape.head_dim, 0, False, False)
    backends = {prompt_kernel(capability)} | ({"fa2"} if takes_tensor_cores(shape) else set())
    modules = [jit.gen_batch_prefill_module(backend, *heads, False) for backend in sorted(backends)]
    if not takes_tensor_cores(shape):
        modules.append(jit.gen_batch_decode_module(*heads))
    return [module.name for module in modules if not module.is_compiled]


def workspace_bytes(shape: AttentionShape, num_processors: int) -> int:
    """The most that its plans take for partial sums: `head_dim` floats and one more for every row of every tile.

    It splits keys only while that gives at most two programs a processor, in tiles of up to 128 rows; a plan for a
    recorded step counts a tile of 16 (64, 128 for larger groups) rows more for every sequence.
    """
    programs = 2 * num_processors // shape.num_kv_heads + 1
    tile = next((rows for rows in (16, 64) if shape.group <= rows), 128)
    tiles = max(programs, -(-shape.most_seqs * shape.group // tile) + shape.most_seqs)
    rows = shape.num_heads * max(programs * 128, tiles * tile)
    return max(4 * rows * (shape.head_dim + 1) + 2**20, 128 * 2**20)
