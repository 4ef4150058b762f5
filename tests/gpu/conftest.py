"""Fixtures for the kernels of the GPU backend, run here on the CPU by Triton's interpreter.

Knows: how the interpreter is switched on. Does not know: any kernel.

Triton decides when a function is declared whether it will be compiled or interpreted, for its own library too; so the
variable must stand while triton is first imported, which is here, while tests are collected and none has run. It stays:
nothing but Triton reads it, and nothing but these tests uses Triton. Tests skip where something was quicker.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest

os.environ["TRITON_INTERPRET"] = "1"


def _problem() -> str | None:
    """Why there is no interpreter here, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch  # noqa: F401
            import triton.language as tl
    except ImportError as error:
        return f"no Triton here: {error}"
    if type(tl.sum).__name__ != "InterpretedFunction":
        return "something imported triton before these tests could switch its interpreter on"
    return None


PROBLEM = _problem()


@pytest.fixture(autouse=True)
def triton_interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interprets the kernels of every test that is marked `triton`; it skips where that is impossible."""
    if request.node.get_closest_marker("triton") is None:
        yield
        return
    if PROBLEM is not None:
        pytest.skip(PROBLEM)
    from interpreted import mend

    mend(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, about lanes that a mask hides
        yield
