"""Models by their model_type: the folder is the registry.

Knows: how a spec and a checkpoint become a model. Does not know: batching, requests.
"""

from __future__ import annotations

from importlib import import_module

from quire.errors import UnsupportedModel
from quire.layers.rotary import Rotary, make_rotary
from quire.layers.source import Inventory, Loader, Progress, Source
from quire.model_spec import FAMILIES, ModelSpec
from quire.models.blocks import Model
from quire.ops.device import Device
from quire.quant import find_format
from quire.weights.checkpoint import Checkpoint

__all__ = ["Model", "load"]


def load(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    device: Device,
    dtype: str,
    progress: Progress | None = None,
    max_positions: int | None = None,
    quantization: str = "none",
) -> Model:
    """Pack the checkpoint's weights in `dtype` (bfloat16 or float32).

    Everything missing, misshapen or left over is named in one `BrokenCheckpoint` before anything is read. `progress`
    is called with (bytes done, bytes in all). `max_positions` positions can be computed, by default the whole context.
    """
    format = find_format(quantization, device, dtype)
    inventory = Inventory(checkpoint, format)
    _build(spec, inventory, make_rotary(spec, 1))
    checkpoint.check(inventory.wanted)
    return _build(spec, Loader(checkpoint, format, progress), make_rotary(spec, max_positions))


def _build(spec: ModelSpec, source: Source, rotary: Rotary) -> Model:
    if spec.model_type not in FAMILIES:
        raise UnsupportedModel("the model type is not supported", got=spec.model_type, allowed=", ".join(FAMILIES))
    model: Model = import_module(f"quire.models.{spec.model_type}").load(spec, source, rotary)
    return model
