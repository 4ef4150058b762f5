"""The C++ kernels, or what stands for them where they were not built: a machine that computes on its GPU alone.

Knows: whether the extension module is there. Does not know: what its kernels compute.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from quire.errors import InvalidSetting

MODULE = "quire.kernels.cpu._cpu"


class Missing:
    """It says so where a kernel is asked for; the two types are named when modules are read, and nobody makes one."""

    PackedWeight = object
    TokenCounts = object

    def __getattr__(self, name: str) -> Any:
        raise InvalidSetting(
            "the CPU's kernels are not built here",
            got=f"no module {MODULE}, and {name} was asked for",
            allowed="--device cuda",
            hint="`make install` builds them; it needs a C++20 compiler.",
            param="device",
        )


if TYPE_CHECKING or find_spec(MODULE) is not None:
    from quire.kernels.cpu import _cpu as _cpu
else:
    _cpu = Missing()
