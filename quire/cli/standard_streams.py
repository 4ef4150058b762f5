"""Descriptors 0, 1 and 2, which some who start a server leave closed.

What is opened next takes the lowest free number: a socket would become stdin, another process' stderr would go into it,
and libuv ends the process when one of the three is closed.

Knows: three descriptors. Does not know: what is written to them.
"""

from __future__ import annotations

import os


def open_missing() -> int:
    """Open /dev/null for each of the three that is closed; how many there were. To be called before all else."""
    num = 0
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            num += 1
    return num
