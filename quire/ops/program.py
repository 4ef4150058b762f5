"""A program: a row of ops recorded once on a device, to be run again without Python between them.

Knows: when recording begins and ends. Does not know: what the ops compute, or when a program has become stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quire.kernels.cpu.native import _cpu
from quire.ops.device import Device


class Program:
    """The ops that ran on `device` inside `recording()`, each with the very arrays that it was given.

    A replay reads and writes the same memory: what the arrays hold may change between two replays, which is how a step
    gets its inputs; arrays, weights and caches stay alive as long as the program. Indices in arrays (ids, positions,
    slots, rows, block tables) are checked again at every replay. `len(program)` is the number of launches.
    """

    __slots__ = ("_cpu",)

    def __init__(self, device: Device) -> None:
        self._cpu = _cpu.Program(device.cpu)

    def __len__(self) -> int:
        return len(self._cpu)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Ops of this thread on the device are run and recorded. RuntimeError: the device records already, the program
        is recorded already, or (from the op) an op that cannot be recorded: `pack`, `unpack`."""
        self._cpu.begin()
        try:
            yield
        finally:
            self._cpu.end()

    def replay(self) -> None:
        """Run all launches in order, as one launch of the device, without Python's lock.

        Raises what the ops would (ValueError for an index out of range, RuntimeError on a closed device); launches
        before the one that failed have run then.
        """
        self._cpu.replay()
