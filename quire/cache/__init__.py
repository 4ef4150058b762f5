"""Knows: which KV block belongs to whom, and which holds a known prefix. Does not know: arrays, text or clocks."""
