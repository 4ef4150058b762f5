"""Each op in plain torch, on any torch device: the second opinion, and what a GPU without Triton runs.

Knows: torch. Does not know: ops, models. Nothing outside imports it before a torch device was asked for.
"""
