"""Knows: who computes how many tokens next, and why. Does not know: arrays, text, clocks or hash order."""
