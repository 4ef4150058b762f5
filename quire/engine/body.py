"""What the machine says of a process that says nothing itself, and how it is asked where it stands.

Knows: /proc, signals. Does not know: what the process does; whether what is seen is right or wrong (`vitals.py`).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

DUMP_SIGNAL = signal.SIGUSR1  # an engine answers it with the stacks of its threads, on stderr
STOPPED, RUNNABLE, WAITS_FOR_DISK = "tT", "R", "D"


@dataclass(frozen=True, slots=True)
class Body:
    """`state` is the kernel's letter for the first thread (R S D T t Z ...); `cpu_s` what all threads have used."""

    state: str
    cpu_s: float


def look(pid: int) -> Body | None:
    """The process now; None where the machine does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = text.rpartition(")")[2].split()  # a name may hold anything, spaces and brackets too
        return Body(fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None


def num_oom_kills() -> int | None:
    """How often this machine has killed for want of memory; None where it does not tell."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None
