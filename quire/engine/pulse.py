"""A page of memory that an engine writes and its front reads without asking: phase, heartbeat, the step under way.

    word  0 layout   1 phase   2 beat   3 steps done   4 began   5 predicted   6 patience   7 names   8.. names
          times in seconds, those of `beat` and `began` on the machine's steady clock; names are 64 bits of SHA-256

The page has no name in the file system: its descriptor is inherited. It outlives whoever wrote it, so that after a
death the front reads which requests were in the fatal step.

Knows: the layout. Does not know: what a reader makes of it (`vitals.py`, `suspects.py`), clocks.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

LAYOUT = 0x51554952_00000001
WORD_BYTES = 8
FIRST_NAME = 8
MOST_NAMES = 8192  # a step of more requests names so many of them
PAGE_BYTES = WORD_BYTES * (FIRST_NAME + MOST_NAMES)
_LAYOUT, _PHASE, _BEAT, _STEPS, _BEGAN, _PREDICTED, _PATIENCE, _NUM_NAMES = range(FIRST_NAME)


class Phase(IntEnum):
    """What an engine is at."""

    LOADING = 0
    IDLE = 1
    BETWEEN = 2  # two steps
    STEP = 3


@dataclass(frozen=True, slots=True)
class Beat:
    """What stands on the page. Seconds are on the machine's steady clock; `names` are digests (`name_of`).

    `patience_s`: how long the step may compute before something must be wrong with it; 0 where nobody can say.
    """

    phase: Phase
    beat_s: float
    num_steps: int
    began_s: float
    predicted_s: float
    patience_s: float
    names: tuple[int, ...] = ()


def name_of(request_id: str) -> int:
    """A request's id as it stands on the page."""
    return int.from_bytes(hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).digest()[:WORD_BYTES], "little")


class Pulse:
    """One page. One process writes, and only words of eight bytes, which the machine stores whole."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, PAGE_BYTES)
        self._bytes = memoryview(self._memory)
        self._whole, self._real = self._bytes.cast("Q"), self._bytes.cast("d")
        self._num_standing = 0  # names of the last step, while no others were written over them

    @classmethod
    def create(cls) -> Pulse:
        """A new page; `fd` is to be handed to the child."""
        fd = os.memfd_create("quire-pulse", os.MFD_CLOEXEC)
        os.ftruncate(fd, PAGE_BYTES)
        page = cls(fd)
        page._whole[_LAYOUT] = LAYOUT
        return page

    @classmethod
    def inherited(cls, fd: int) -> Pulse:
        """The page of the process that started this one. Raises `ValueError` where it is something else."""
        page = cls(fd)
        if page._whole[_LAYOUT] != LAYOUT:
            raise ValueError(f"descriptor {fd} is not a pulse of this release")
        return page

    def beat(self, now: float, phase: Phase) -> None:
        """The loop is alive at `now`; no step is under way and nobody is suspected of anything."""
        whole = self._whole
        whole[_NUM_NAMES] = 0
        whole[_PHASE] = phase
        self._real[_BEAT] = now

    def accuse(self, names: Iterable[int]) -> None:
        """Whose doing it would be if the engine died now."""
        found = list(names)[:MOST_NAMES]
        whole = self._whole
        whole[_NUM_NAMES] = 0
        for place, name in enumerate(found, FIRST_NAME):
            whole[place] = name
        whole[_NUM_NAMES] = len(found)  # last, so that a page that was being written names nobody by mistake
        self._num_standing = 0

    def begin(self, now: float, names: Iterable[int], predicted_s: float, patience_s: float) -> None:
        """A step of these requests begins."""
        real = self._real
        real[_BEGAN], real[_PREDICTED], real[_PATIENCE] = now, predicted_s, patience_s
        self.accuse(names)
        self._num_standing = self._whole[_NUM_NAMES]
        self._whole[_PHASE] = Phase.STEP
        real[_BEAT] = now

    def begin_again(self, now: float) -> bool:
        """A step like the last one begins; False if what was written of that one is not there any more."""
        if not self._num_standing:
            return False
        whole, real = self._whole, self._real
        whole[_NUM_NAMES] = self._num_standing
        whole[_PHASE] = Phase.STEP
        real[_BEGAN] = real[_BEAT] = now
        return True

    def forget(self) -> None:
        """What was run until now was nobody's."""
        self._whole[_STEPS] = 0

    def end(self) -> None:
        """The step is done; its requests stay accused until the loop beats again, for what is made of its results."""
        self._whole[_STEPS] += 1

    def read(self, with_names: bool = True) -> Beat:
        """What stands there now."""
        whole, real = self._whole, self._real
        num = min(whole[_NUM_NAMES], MOST_NAMES) if with_names else 0
        names = tuple(whole[FIRST_NAME : FIRST_NAME + num])
        phase = Phase(min(whole[_PHASE], Phase.STEP))
        return Beat(phase, real[_BEAT], whole[_STEPS], real[_BEGAN], real[_PREDICTED], real[_PATIENCE], names)

    def close(self) -> None:
        """Let the page go on this side."""
        for view in (self._whole, self._real, self._bytes):
            view.release()
        self._memory.close()
        os.close(self.fd)
