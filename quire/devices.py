"""Where a plan computes: the processor, or a GPU that is really there.

Knows: settings and hardware, as arguments. Does not know: torch, models, what is computed.
"""

from __future__ import annotations

from quire.errors import InvalidSetting
from quire.hardware import Hardware
from quire.settings import EngineSettings

GPU_RUNTIME_BYTES = 2**30  # CUDA's context, cuBLAS's workspace, compiled kernels, what the allocator rounds up
GPU_ALONE = {
    "dtype": ("float16",),
    "quantization": ("fp8",),
    "head_quantization": ("fp8",),
    "kv_cache_dtype": ("float16", "fp8"),
}


def choose_device(settings: EngineSettings, hardware: Hardware, notes: list[str]) -> str:
    """The device for what was asked; notes say why a GPU that is there is not used. Raises `InvalidSetting` where the
    machine has no such device, or the device no such format."""
    asked = settings.device
    if asked == "auto":
        asked = "cuda" if hardware.accelerators and not hardware.missing_extra else "cpu"
        if hardware.accelerators and hardware.missing_extra:
            missing = ", ".join(hardware.missing_extra)
            notes.append(f"the {hardware.accelerators[0].name} is not used: {missing} missing (pip install quire[gpu])")
    elif asked != "cpu":
        _check_there(asked, hardware)
    _check_formats(asked, settings)
    return asked


def device_bytes(settings: EngineSettings, hardware: Hardware) -> int:
    """What the first GPU may hold for us: the share of its memory that was asked for, if so much is free."""
    gpu = hardware.accelerators[0]
    return min(int(gpu.memory_total_bytes * settings.gpu_memory_utilization), gpu.memory_free_bytes)


def _check_there(asked: str, hardware: Hardware) -> None:
    needed = set(hardware.missing_extra) - ({"triton"} if asked == "torch:cpu" else set())
    if asked == "cuda" and not hardware.accelerators:
        raise InvalidSetting(
            "--device cuda was asked for, and this machine shows no NVIDIA GPU",
            got=asked,
            allowed="auto, cpu",
            hint="Does nvidia-smi list one, and does CUDA_VISIBLE_DEVICES show it?",
            param="device",
        )
    if needed:
        raise InvalidSetting(
            f"--device {asked} needs packages that are not installed",
            got=f"without {', '.join(sorted(needed))}",
            allowed="auto, cpu",
            hint="pip install quire[gpu]",
            param="device",
        )


def choose_attention(device: str, settings: EngineSettings, hardware: Hardware) -> str:
    """ "quire", "flashinfer", or "timed": both are timed at start. Raises `InvalidSetting` for what is not there."""
    asked = settings.attention_backend
    _check_attention(device, asked, settings.batch_invariant, hardware)
    both = device == "cuda" and "flashinfer" in hardware.optional_extra and not settings.batch_invariant
    return "flashinfer" if asked == "flashinfer" else "timed" if asked == "auto" and both else "quire"


def _check_attention(device: str, asked: str, batch_invariant: bool, hardware: Hardware) -> None:
    if device == "cpu" and asked != "auto":
        raise InvalidSetting(
            f"--attention-backend {asked} needs a GPU", got="--device cpu", allowed="auto", param="attention_backend"
        )
    if asked != "flashinfer":
        return
    if batch_invariant:
        raise InvalidSetting(
            "--attention-backend flashinfer and --batch-invariant contradict each other",
            got="both",
            allowed="auto or triton with --batch-invariant",
            hint="Bits that do not depend on the batch are promised of quire's own kernels alone.",
            param="attention_backend",
        )
    if "flashinfer" not in hardware.optional_extra:
        raise InvalidSetting(
            "--attention-backend flashinfer needs a package that is not installed",
            got="without flashinfer",
            allowed="auto, triton",
            hint='pip install "quire[flashinfer]"; flashinfer-jit-cache beside it saves compiling at the first start.',
            param="attention_backend",
        )


def _check_formats(device: str, settings: EngineSettings) -> None:
    """Options that one kind of device has and the other one lacks."""
    if device != "cpu":
        if settings.quantization_cache is not None:
            raise InvalidSetting(
                "--quantization-cache keeps the CPU's packed weights alone",
                got=f"--device {device}",
                allowed="no --quantization-cache",
                hint="A GPU quantizes while it loads.",
                param="quantization_cache",
            )
        if settings.head_quantization == "int4x2":
            raise InvalidSetting(
                "--head-quantization int4x2 is a format of the CPU alone",
                got=f"--device {device}",
                allowed="auto, none, int8, int4, fp8",
                param="head_quantization",
            )
        return
    for name, values in GPU_ALONE.items():
        value = getattr(settings, name)
        if value in values:
            raise InvalidSetting(
                f"--{name.replace('_', '-')} {value} needs a GPU",
                got="--device cpu",
                allowed="--device cuda",
                hint="On the CPU there are bfloat16, float32, int8 and int4.",
                param=name,
            )
