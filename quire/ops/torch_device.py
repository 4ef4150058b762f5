"""A device that computes with torch: a GPU, or (to test the same code without one) the CPU.

Knows: which kernels there are for an op, and which of them this machine gets. Does not know: what the ops compute.
Loaded only when such a device is asked for (`ops/open_device.py`): nothing else of ours brings torch in.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from quire.attention_shape import AttentionShape
from quire.errors import InvalidSetting, NotEnoughMemory
from quire.kernels.torch import memory, pack
from quire.kernels.torch.drawing import Drawing, Order
from quire.kernels.torch.lanes import Copyback, Inbox, Uploads, lanes_of
from quire.kernels.torch.loading import Loading
from quire.kernels.torch.recording import FAILURES, Recorder, recorder_of
from quire.kernels.torch.weight import INT32, TORCH_DTYPES, Weight
from quire.ops.device import Device
from quire.ops.kernels import Kernel, Kernels

OPS = ("linear", "rms_norm", "silu_mul", "rope_store", "attention", "embed", "gather_rows", "sample")
INVARIANT = ("linear", "rms_norm", "rope_store", "attention")  # the others add nothing up, or integers
ROWS_ARE_PROGRAMS = ("rms_norm", "rope_store")  # in Triton: a row is added up by one program, whatever the others do
FILES = {"gather_rows": "gather"}
Choice = tuple[str, str, str]


class TorchDevice(Device):
    """One torch device, its activations' number format and a table of kernels chosen when it is made.

    `name` is "cuda", "torch:cpu", or "triton:cpu" (Triton's interpreter; TRITON_INTERPRET must be set). `dtype` is
    bfloat16, float16 or float32. With `batch_invariant` a row's bits do not depend on the rows beside it.
    Raises `InvalidSetting` where the machine has no such device.
    """

    __slots__ = (
        "_choices", "_drawing", "_loading", "_other", "_uploads", "batch_invariant", "dtype", "kind", "lanes", "torch",
    )  # fmt: skip

    def __init__(self, name: str, threads: int = 1, dtype: str = "bfloat16", batch_invariant: bool = False) -> None:
        found_device = memory.open_device(name)
        if found_device is None:
            raise InvalidSetting(
                "This machine has no device of that kind",
                got=name,
                allowed="cpu",
                hint="torch.cuda.is_available() says no: is the driver loaded, is torch a build with CUDA?",
                param="device",
            )
        self.torch = found_device
        memory.set_threads(self.torch, threads)
        self.kind, self.threads, self.dtype, self.batch_invariant = name, threads, TORCH_DTYPES[dtype], batch_invariant
        self.isa = f"{memory.describe(self.torch)}, torch {version('torch')}{', batch-invariant' * batch_invariant}"
        self.lanes = lanes_of(self.torch)
        self._uploads, self._loading = Uploads(self.lanes), Loading(self.lanes)
        self._other: Any | None = None
        self._choices, found = choose(name, batch_invariant)
        self._drawing = Drawing(self.lanes, self._uploads, found.pop("sample"))
        self.kernels = Kernels(
            **found,
            sample=self._drawing.sample,
            token_counts=self._drawing.token_counts,
            pack=self._pack,
            quantize=self._quantize,
            unpack=self._unpack,
        )

    @property
    def memory(self) -> Any | None:
        """Of a GPU; see `kernels/torch/memory.py`."""
        return memory.measured(self.torch)

    def close(self) -> None:
        """Nothing to end: torch keeps its own threads."""

    def put(self, array: Any) -> Any:
        """A copy of a NumPy array on the device; of several, see `put_all`."""
        return self._uploads.upload([array])[0]

    def put_all(self, arrays: Sequence[Any]) -> list[Any]:
        """Copies of NumPy arrays, in one transfer that nobody waits for."""
        return self._uploads.upload(arrays)

    def fetch(self, array: Any) -> Any:
        """A tensor as a NumPy array; waits for the device."""
        return array.float().cpu().numpy() if array.dtype.itemsize == 2 else array.cpu().numpy()

    def order_draw(self, logits_RV: Any, rows: Any) -> Order:
        """`ops.sample.sample` begun: nothing waits; `finish_draw` does. For rows without mask and penalties."""
        return self._drawing.begin(logits_RV, rows)

    def finish_draw(self, order: Order, drawn: Any) -> int:
        """Wait for what was ordered and write it to `drawn`; the number of rows that failed."""
        return self._drawing.finish(order, drawn)

    def copyback(self, shape: tuple[int, ...]) -> Copyback:
        """Room on both sides for an int32 tensor that comes back while the device goes on."""
        return Copyback(self.lanes, [(shape, INT32)])

    def inbox(self, shapes: Sequence[tuple[int, ...]]) -> Inbox:
        """int32 tensors that stay where they are, filled in one copy that nobody waits for."""
        return Inbox(self.lanes, self._uploads, shapes)

    def recorder(self) -> Recorder | None:
        """Who records launches; None where attention asks the host on its way and cannot be recorded."""
        attention = {op: how for op, how, _ in self._choices}["attention"]
        return None if self.torch.type == "cuda" and not attention.startswith("triton/") else recorder_of(self.torch)

    @property
    def recording_failures(self) -> tuple[type[Exception], ...]:
        """What a recording may raise."""
        return FAILURES

    def other_attention(self, shape: AttentionShape, compiles: bool) -> tuple[Any | None, str]:
        """(FlashInfer for this model, its name), or (None, why not); one that `compiles` may take minutes."""
        vendor = importlib.import_module("quire.kernels.vendor.flashinfer")
        found: tuple[Any | None, str] = vendor.open_flashinfer(self.lanes, shape, self.dtype, compiles)
        return found

    def attention_trial(self, other: Any, shape: AttentionShape, kind: str, records: bool) -> Any:
        """A `kernels/vendor/trial.py`; it raises one of `attention_failures`."""
        return importlib.import_module("quire.kernels.vendor.trial").Trial(
            *(other, self.kernels.attention, shape, kind, self.dtype, self.lanes, self._uploads),
            self.recorder() if records else None,
        )

    @property
    def attention_failures(self) -> tuple[type[Exception], ...]:
        """What a library that is not ours may raise."""
        failures: tuple[type[Exception], ...] = importlib.import_module("quire.kernels.vendor.flashinfer").FAILURES
        return failures

    def use_attention(self, other: Any, kinds: Mapping[str, str], others: Mapping[str, str]) -> None:
        """From now on steps of `kinds` go through `other`; both say why. Once, before the first step."""
        self._other = importlib.import_module("quire.kernels.vendor.chosen").Chosen(other, kinds, others)
        self.isa += f", {self._other.label}" if kinds else ""

    def plan_attention(self, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> Any | None:
        """A step that is launched once; None where our own kernel computes it, which needs no plan."""
        return None if self._other is None else self._other.plan(query_starts_S1, seq_lens_S, block_tables_SB)

    def recorded_attention(self, num_seqs: int) -> Any | None:
        """The same for steps of so many single tokens that are recorded."""
        return None if self._other is None else self._other.recorded(num_seqs)

    def replan_attention(self, planned: Any, query_starts_S1: Any, seq_lens_S: Any, block_tables_SB: Any) -> bool:
        """Plan the next step of what `recorded_attention` made; False if it is of no use any more."""
        done: bool = self._other.fill(planned, query_starts_S1, seq_lens_S, block_tables_SB) if self._other else False
        return done

    def reserve_draws(self, num_rows: int, vocab_size: int) -> None:
        """Room for the penalties of `num_rows` sequences a step, so that no step needs more."""
        self._drawing.reserve(2 * num_rows, vocab_size)

    def synchronize(self) -> None:
        """Wait until everything that was asked of the device is done."""
        self.lanes.mark().wait()

    def explain(self) -> list[Choice]:
        """Rows (op, implementation, why), for `quire doctor`."""
        own = {op: how for op, how, _ in self._choices}["attention"]
        return [*self._choices, *(self._other.explain(own) if self._other is not None else ())]

    def _pack(self, parts: Sequence[Any], dtype: str) -> Weight:
        make = pack.joined if dtype != "fp8" else pack.quantized
        return self._guarded(lambda: make([self._loading.load(part) for part in parts], dtype))

    def _quantize(
        self, parts: Sequence[Any], bits: int, group_size: int | None = None, symmetric: bool = True
    ) -> Weight:
        dtype = {8: "int8", 4: "int4"}[bits]
        return self._guarded(
            lambda: pack.quantized([self._loading.load(part) for part in parts], dtype, group_size or 0, symmetric)
        )

    def _guarded(self, make: Any) -> Weight:
        try:
            weight: Weight = make()
        except memory.OUT_OF_MEMORY as error:
            raise NotEnoughMemory(
                "the weights do not fit the device's memory",
                got=str(error).splitlines()[0],
                hint="Try --quantization int8 or int4, or a device on which nobody else holds memory.",
            ) from error
        return weight

    def _unpack(self, weight: Weight, out_NK: Any) -> None:
        out_NK[:] = weight.rows().cpu().numpy()


def choose(name: str, batch_invariant: bool) -> tuple[list[Choice], dict[str, Any]]:
    """(rows that explain, op -> kernel). First Triton's where it runs, else torch's."""
    rows, found = [], {}
    for op in OPS:
        module, why = _module(op, name)
        kernel = getattr(importlib.import_module(module), op)
        if batch_invariant and op in INVARIANT:
            module, kernel = _invariant(op, module, kernel)
            why = f"{why}; one order of adding for every batch"
        found[op] = kernel
        rows.append((op, module.removeprefix("quire.kernels.").replace(".", "/"), why))
    return rows, found


def _module(op: str, name: str) -> tuple[str, str]:
    file = FILES.get(op, op)
    triton = f"quire.kernels.triton.{file}"
    if name == "torch:cpu":
        return f"quire.kernels.torch.{file}", "asked for by the device's name"
    if find_spec("triton") is None:
        return f"quire.kernels.torch.{file}", "triton is not installed"
    if find_spec("quire.kernels.triton") is None or find_spec(triton) is None:
        return f"quire.kernels.torch.{file}", "there is no Triton kernel for it"
    return triton, f"Triton {version('triton')}" + (" in its interpreter" if name == "triton:cpu" else "")


def _invariant(op: str, module: str, kernel: Kernel) -> tuple[str, Kernel]:
    """A Triton kernel that has such a mode is asked for it, one whose programs are rows needs none."""
    if "invariant" in inspect.signature(kernel).parameters:
        return module, functools.partial(kernel, invariant=True)
    if ".triton." in module and op in ROWS_ARE_PROGRAMS:
        return module, kernel
    plain: Kernel = getattr(importlib.import_module("quire.kernels.torch.invariant"), op)
    return "quire.kernels.torch.invariant", plain
