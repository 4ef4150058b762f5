"""A Triton kernel can take the place of its plain torch twin: the same parameters first, and what else it has is
optional. Read from the sources, so that neither is loaded.

Knows: where launchers stand. Does not know: what they compute.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "quire/kernels"
OPS = {
    "linear": "linear", "rms_norm": "rms_norm", "silu_mul": "silu_mul", "rope_store": "rope_store",
    "attention": "attention", "embed": "embed", "gather_rows": "gather", "sample": "sample",
}  # fmt: skip


def parameters(backend: str, op: str) -> tuple[list[str], int]:
    """Names in order, and how many of them must be given."""
    tree = ast.parse((KERNELS / backend / f"{OPS[op]}.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == op)
    names = [each.arg for each in found.args.args]
    return names, len(names) - len(found.args.defaults)


@pytest.mark.parametrize("op", OPS)
def test_a_triton_kernel_can_stand_in(op: str) -> None:
    if not (KERNELS / "triton" / f"{OPS[op]}.py").is_file():
        pytest.skip("there is no Triton kernel for it")
    (plain, num_needed), (theirs, num_theirs) = parameters("torch", op), parameters("triton", op)
    assert theirs[: len(plain)] == plain
    assert num_theirs <= num_needed
