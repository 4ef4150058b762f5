"""Whether a draw gave what another one gave, by one rule for benchmarks and tests.

Knows: what must be equal exactly, and how near the rest. Does not know: devices, how anything is drawn.
"""

from __future__ import annotations

import math

from quire.step import WorkResult

NEAR = 1e-12  # the last bits of a float64 logarithm differ between libraries


def difference(got: WorkResult, expected: WorkResult) -> str:
    """The first thing that differs, empty if none does: tokens, errors and ranks exactly, log probabilities nearly."""
    pairs: list[tuple[str, object, object]] = [
        ("tokens", got.tokens, expected.tokens),
        ("error", got.error, expected.error),
        ("number of log probabilities", len(got.logprobs), len(expected.logprobs)),
    ]
    for place, (one, other) in enumerate(zip(got.logprobs, expected.logprobs, strict=False)):
        pairs.append((f"token and rank {place}", (one.token, one.rank), (other.token, other.rank)))
        pairs.append((f"top tokens {place}", [top[0] for top in one.top], [top[0] for top in other.top]))
        values = [(one.logprob, other.logprob), *((a[1], b[1]) for a, b in zip(one.top, other.top, strict=False))]
        far = [pair for pair in values if not math.isclose(*pair, rel_tol=NEAR, abs_tol=NEAR)]
        pairs += [(f"log probability {place}", *pair) for pair in far]
    for what, ours, theirs in pairs:
        if ours != theirs:
            return f"{what}: got {ours}, expected {theirs}"
    return ""
