"""Ways to hold one model's weights and cache, and their short names.

Knows: spellings such as int4-g32/int8-g128+kv-int8. Does not know: models, how good a way is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.errors import InvalidSetting
from quire.ops.kv_cache import DTYPES as KV_DTYPES
from quire.precision import GROUP_SIZES, Precision

SPELLING = re.compile(r"(?P<layers>[^/+]+)(/(?P<head>[^/+]+))?(\+kv-(?P<kv>\w+))?")
WEIGHTS = re.compile(r"(?P<dtype>bfloat16|float32|int8|int4x2|int4)(-g(?P<group>\d+)(?P<offset>a)?)?")


@dataclass(frozen=True, slots=True)
class Variant:
    """`name` says it all: the layers' format, after / that of embedding and head, after +kv- that of the cache."""

    name: str
    layers: Precision
    head: Precision
    kv_dtype: str


BASE = Variant("bfloat16", Precision("bfloat16"), Precision("bfloat16"), "bfloat16")


def parse_variant(name: str) -> Variant:
    """The variant of that name; the head is held as the layers are, and the cache is bfloat16, unless it says more.

    Raises `InvalidSetting`.
    """
    found = SPELLING.fullmatch(name)
    if found is None:
        raise _unknown(name)
    layers = _weights(name, found["layers"])
    head = _weights(name, found["head"]) if found["head"] else layers
    if layers.dtype == "int4x2":
        raise _unknown(name)
    kv_dtype = found["kv"] or ("float32" if layers.dtype == "float32" else "bfloat16")
    if kv_dtype not in KV_DTYPES:
        raise _unknown(name)
    return Variant(name, layers, head, kv_dtype)


def default_variants() -> tuple[Variant, ...]:
    """What can be asked for, and what was weighed against it."""
    names = ["float32", "int8", "int8-g128", "int8-g64", "int8-g32", "int8-g128/bfloat16"]
    names += [f"int4-g{size}/int8" for size in (128, 64, 32)]
    names += ["int4-g32a/int8", "int4-g32/bfloat16", "int4-g32", "int4-g32/int4x2"]
    if "int8" in KV_DTYPES:
        names += ["bfloat16+kv-int8", "int8+kv-int8"]
    return tuple(parse_variant(name) for name in names)


def _weights(name: str, text: str) -> Precision:
    found = WEIGHTS.fullmatch(text)
    if found is None:
        raise _unknown(name)
    group = int(found["group"] or 0)
    quantized = found["dtype"] in ("int8", "int4")
    if (group and (not quantized or group not in GROUP_SIZES)) or (found["offset"] and found["dtype"] != "int4"):
        raise _unknown(name)
    return Precision(found["dtype"], group, symmetric=not found["offset"])


def _unknown(name: str) -> InvalidSetting:
    return InvalidSetting(
        "there is no such variant",
        got=name,
        allowed="bfloat16, float32, int8, int4, for a head int4x2; -g32, -g64 or -g128 for groups (int4 with a final a:"
        " asymmetric);"
        f" / and the head's format; +kv- and {', '.join(KV_DTYPES)}",
        hint="Such as int4-g32/int8-g128.",
    )
