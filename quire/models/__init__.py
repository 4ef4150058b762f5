"""Models by their model_type: the folder is the registry.

Knows: how a spec and a checkpoint become a model. Does not know: batching, requests.
"""

from __future__ import annotations

from importlib import import_module

from quire.errors import UnsupportedModel
from quire.layers.rotary import Rotary, make_rotary
from quire.layers.source import Inventory, Kept, Loader, Progress, Source
from quire.model_spec import FAMILIES, ModelSpec
from quire.models.blocks import Model
from quire.ops.device import Device
from quire.precision import Precision
from quire.quant import find_format
from quire.weights.checkpoint import Checkpoint

__all__ = ["Model", "build_from", "load"]


def load(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    device: Device,
    precision: Precision,
    head_precision: Precision | None = None,
    progress: Progress | None = None,
    max_positions: int | None = None,
    kept: Kept | None = None,
) -> Model:
    """Pack the checkpoint's weights, those of the layers in `precision`, embedding and head in `head_precision`.

    Everything missing, misshapen or left over is named in one `BrokenCheckpoint` before anything is read. `progress`
    is called with (bytes done, bytes in all). `max_positions` positions can be computed, by default the whole context.
    `head_precision` is `precision` by default. What `kept` has is not read from the checkpoint.
    """
    formats = find_format(precision, device), find_format(head_precision or precision, device)
    inventory = Inventory(checkpoint, *formats)
    build_from(spec, inventory, make_rotary(spec, 1))
    checkpoint.check(inventory.wanted)
    rotary = make_rotary(spec, max_positions)
    rotary = Rotary(device.put(rotary.cos_PD2), device.put(rotary.sin_PD2))
    return build_from(spec, Loader(checkpoint, *formats, progress, kept, device.put), rotary)


def build_from(spec: ModelSpec, source: Source, rotary: Rotary) -> Model:
    """The family's network with weights of any source. Raises `UnsupportedModel`."""
    if spec.model_type not in FAMILIES:
        raise UnsupportedModel("the model type is not supported", got=spec.model_type, allowed=", ".join(FAMILIES))
    model: Model = import_module(f"quire.models.{spec.model_type}").load(spec, source, rotary)
    return model
