"""The part of FlashInfer that says what is compiled. Knows: names. Does not know: compilers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

COMPILED = {"fa2": True, "fa3": True, "decode": True}


def gen_batch_prefill_module(backend: str, *arguments: Any) -> SimpleNamespace:
    assert len(arguments) == 10
    return SimpleNamespace(name=f"batch_prefill_{backend}", is_compiled=COMPILED[backend])


def gen_batch_decode_module(*arguments: Any) -> SimpleNamespace:
    assert len(arguments) == 9
    return SimpleNamespace(name="batch_decode", is_compiled=COMPILED["decode"])
