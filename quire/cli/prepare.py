"""From MODEL and options to a frozen plan, and the plan in a few readable lines.

Knows: resolve, the model's config, the hardware, the plan. Does not know: what runs afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quire.cli.resolve import resolve
from quire.hardware import Hardware, probe
from quire.model_spec import ModelSpec, read_model_spec
from quire.plan import Plan, plan
from quire.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided before the first tensor is read."""

    folder: Path
    name: str
    spec: ModelSpec
    hardware: Hardware
    plan: Plan


def prepare(model: str | None, revision: str | None, settings: EngineSettings) -> Prepared:
    """Resolve, read the config, ask the machine, decide. Raises `StartError`."""
    found = resolve(model, revision)
    spec = read_model_spec(found.folder)
    hardware = probe()
    return Prepared(found.folder, found.name, spec, hardware, plan(settings, hardware, spec, found.name))


def describe(prepared: Prepared) -> list[str]:
    """The plan as a person reads it: model, machine, memory, batching."""
    chosen, spec = prepared.plan, prepared.spec
    shape = f"{spec.model_type}, {count(spec.num_parameters)} parameters"
    cache = "with" if chosen.prefix_cache else "without"
    pool = f"KV cache {size(chosen.kv_bytes)} for {chosen.kv_tokens:,} tokens in {chosen.kv_dtype}"
    lines = [
        f"model    {prepared.name} ({shape}), context {chosen.max_model_len:,} tokens",
        f"machine  {_machine(prepared)}",
        f"weights  {chosen.precision}; embedding and head {chosen.head_precision};"
        f" {size(chosen.weights.total)}, of which a token reads {size(chosen.weights.per_token)}",
        f"memory   {pool} (blocks of {chosen.block_size}, {cache} prefix cache),"
        f" activations {size(chosen.activation_bytes)}",
        f"batches  at most {chosen.max_num_seqs} sequences and {chosen.max_num_batched_tokens:,} tokens a step",
    ]
    return lines + [f"note     {note}" for note in chosen.notes]


def _machine(prepared: Prepared) -> str:
    hardware, chosen = prepared.hardware, prepared.plan
    if chosen.device == "cuda":
        gpu = hardware.accelerators[0]
        return f"{gpu.name}, {size(chosen.device_bytes)} of {size(gpu.memory_total_bytes)} for it (--device cuda)"
    kind = "" if chosen.device == "cpu" else f", as {chosen.device}"
    return f"{hardware.cpu_model}, {chosen.threads} {plural(chosen.threads, 'thread')}{kind}"


def size(num_bytes: int) -> str:
    """Bytes for people: the largest unit that leaves at least one."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}" if num_bytes < 1000 * scale else f"{num_bytes / scale:,.0f} {unit}"
    return f"{num_bytes} B"


def count(number: int) -> str:
    """A large number for people: 596 M, 1.24 B."""
    for unit, scale in ((" B", 10**9), (" M", 10**6), (" k", 10**3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return str(number)


def plural(number: int, noun: str) -> str:
    """`noun` as it follows `number`."""
    return noun if number == 1 else f"{noun}s"
