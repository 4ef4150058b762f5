"""What the machine says of a process that says nothing itself, and how it is asked where it stands.

Knows: /proc, signals. Does not know: what the process does; whether what is seen is right or wrong (`vitals.py`).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

DUMP_SIGNAL = signal.SIGUSR1  # an engine answers it with the stacks of its threads, on stderr
STOPPED, RUNNABLE, WAITS_FOR_DISK, ASLEEP = "tT", "R", "D", "S"


@dataclass(frozen=True, slots=True)
class Body:
    """`state` is the kernel's letter (R S D T t Z ...) of the thread that is nearest to getting on.

    `cpu_s` is what all threads have used.
    """

    state: str
    cpu_s: float


def look(pid: int) -> Body | None:
    """The process now; None where the machine does not tell."""
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        states = fields[0]
        if states in ASLEEP:  # the others may be at work, or wait for a page that was swapped out
            states += "".join([_fields(task / "stat")[0] for task in Path(f"/proc/{pid}/task").iterdir()])
        return Body(next((state for state in STOPPED + RUNNABLE + WAITS_FOR_DISK if state in states), fields[0]), cpu_s)
    except (OSError, ValueError, IndexError):
        return None


def _fields(path: Path) -> list[str]:
    """What follows the name, which may hold anything, spaces and brackets too."""
    return path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def num_oom_kills() -> int | None:
    """How often this machine has killed for want of memory; None where it does not tell."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None
