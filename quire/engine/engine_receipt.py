"""The parts of a receipt that the engine's side knows.

Knows: where code, weights and tables lie. Does not know: tokenizers, templates, who reads a receipt.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from quire.models import Model
from quire.ops.device import Device
from quire.plan import Plan
from quire.receipt import Receipt, short

PACKAGE = Path(__file__).parents[1]
COMPUTING = ("models", "layers", "ops", "quant", "sampling", "runner", "structured", "weights", "kernels/cpu")
GPU_COMPUTING = ("kernels/torch", "kernels/triton", "kernels/vendor")
SUFFIXES = (".py", ".so", ".pyd")
ROPE_POSITIONS = 4096  # of the table that are looked at: 3 ms


def engine_receipt(plan: Plan, model: Model, device: Device, weights: str) -> Receipt:
    """What the engine computes with; `weights` is the digest of the checkpoint's tensors."""
    return Receipt.of(
        {
            "weights": short(weights),
            "config": short(hashlib.sha256(repr(model.spec).encode()).hexdigest()),
            "formats": f"{plan.precision.tag} {plan.head_precision.tag} kv-{plan.kv_dtype}",
            "context": str(plan.max_model_len),
            "isa": device.isa,
            "code": short(code_digest(PACKAGE, device.kind)),
            "rope": short(rope_digest(model, device)),
            "numpy": version("numpy"),
        }
    )


def code_digest(package: Path = PACKAGE, kind: str = "cpu") -> str:
    """SHA-256 (hex) of every file that can change what is computed: kernels as they were built, and the Python above.

    Sampling parameters and steps are the words between them; the scheduler cannot change a bit (decision 002).
    """
    digest = hashlib.sha256()
    rooms = COMPUTING if kind == "cpu" else COMPUTING + GPU_COMPUTING
    files = [path for room in rooms for path in (package / room).glob("**/*") if path.suffix in SUFFIXES]
    for path in sorted(files):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def rope_digest(model: Model, device: Device) -> str:
    """SHA-256 (hex) of the first positions of the tables in use.

    NumPy's sine and cosine differ between its releases, and between machines by instructions of its own choice.
    """
    digest = hashlib.sha256()
    for table_PD2 in (model.blocks[0].attention.rotary.cos_PD2, model.blocks[0].attention.rotary.sin_PD2):
        digest.update(device.fetch(table_PD2[:ROPE_POSITIONS]).tobytes())
    return digest.hexdigest()
