"""A device: the threads and the instruction set that an op runs on.

Knows: which instruction sets there are and which of them this machine has. Does not know: what the ops compute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from quire.errors import InvalidSetting
from quire.kernels.cpu.native import _cpu
from quire.ops.kernels import Kernels, cpu_kernels

ISAS = ("generic", "avx2", "avx512", "amx")
MAX_THREADS = 1024

_BF16_PRODUCTS = {
    "amx": "tdpbf16ps, 32 x 48 tiles",
    "avx512": "vdpbf16ps, 8 x 48 tiles",
    "avx2": "bf16 widened to float32, fused multiply-add",
    "generic": "bf16 widened to float32, multiply and add",
}


class Device:
    """A pool of `threads` threads (the caller's is one of them) and a table of kernels.

    `isa` is "auto" or one of `ISAS`; the variable QUIRE_CPU_ISA, when set, takes the place of "auto". An instruction
    set that the machine lacks is refused (`InvalidSetting`). Ops of one device run one at a time; two devices are
    independent.
    """

    __slots__ = ("_why", "cpu", "isa", "kernels", "threads")

    kind = "cpu"

    def __init__(self, threads: int, isa: str = "auto", environ: Mapping[str, str] | None = None) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise InvalidSetting("The number of threads is out of range", got=threads, allowed=f"1 to {MAX_THREADS}")
        self.isa, self._why = choose_isa(isa, os.environ if environ is None else environ)
        self.threads = threads
        self.cpu = _cpu.Device(threads, self.isa)
        self.kernels: Kernels = cpu_kernels(self.cpu)

    def close(self) -> None:
        """Joins the threads; an op on a closed device raises RuntimeError. Closing twice is nothing."""
        self.cpu.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def memory(self) -> Any | None:
        """Who measures the memory of a GPU; None where the plan's own count holds."""
        return None

    def reserve_draws(self, num_rows: int, vocab_size: int) -> None:
        """Room for the penalties of `num_rows` sequences a step; a processor's counts lie with each sequence."""

    def plan_attention(self, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> Any | None:
        """What `ops/attention.py` takes as `planned` for a step whose arrays lie on the host, good until the next plan;
        None where its kernel needs no plan."""
        return None

    def put(self, array: Any) -> Any:
        """A NumPy array where the ops can read it: here it is there already."""
        return array

    def put_all(self, arrays: Sequence[Any]) -> list[Any]:
        """The same for several at once."""
        return list(arrays)

    def fetch(self, array: Any) -> Any:
        """What the ops wrote, as a NumPy array: here it is one already."""
        return array

    def explain(self) -> list[tuple[str, str, str]]:
        """Rows (op, implementation, why), for `quire doctor`."""
        vector = f"cpu/{self.isa}"
        return [
            ("linear bfloat16", f"{vector}: {_BF16_PRODUCTS[self.isa]}", self._why),
            ("linear float32", vector, self._why),
            ("rms_norm", vector, self._why),
            ("silu_mul", vector, self._why),
            ("rope_store", vector, self._why),
            ("attention", vector, self._why),
            ("sample", vector, self._why),
            ("embed", "cpu/portable", "it only moves bytes"),
            ("gather_rows", "cpu/portable", "it only moves bytes"),
        ]


def available_isas() -> list[str]:
    """The instruction sets that this machine has, narrowest first."""
    return [isa for isa in ISAS if not _cpu.missing_for(isa)]


def choose_isa(isa: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """(instruction set, why) for what was asked, by argument or (for "auto") by QUIRE_CPU_ISA.

    Raises InvalidSetting for an unknown name or one that the machine lacks.
    """
    asked, param = isa, "isa"
    if isa == "auto" and environ.get("QUIRE_CPU_ISA"):
        asked, param = environ["QUIRE_CPU_ISA"], "QUIRE_CPU_ISA"
    if asked == "auto":
        return _widest()
    if asked not in ISAS:
        allowed = ", ".join((*ISAS, "auto") if param == "isa" else ISAS)
        raise InvalidSetting("Unknown instruction set", got=f"{param}={asked}", allowed=allowed, param=param)
    if missing := _cpu.missing_for(asked):
        raise InvalidSetting(
            f"This machine cannot run the {asked} kernels",
            got=f"{param}={asked}, and the machine lacks {missing}",
            allowed=", ".join(available_isas()),
            hint="Leave it unset to use the best that the machine has.",
            param=param,
        )
    return asked, f"asked for by {param}"


def _widest() -> tuple[str, str]:
    best = _cpu.best_isa()
    wider = ISAS[ISAS.index(best) + 1 :]
    lacks = "; ".join(f"{isa} needs {_cpu.missing_for(isa)}" for isa in wider)
    return best, f"the widest that this machine has{f' ({lacks})' if lacks else ''}"
