"""Knows: the real scheduler over a modelled device. Does not know: arrays, models, or the time of day."""
