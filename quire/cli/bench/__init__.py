"""Measuring: offline (the engine alone), serve (any server, open loop), kv-waste (the cache, on a trace).

Knows: what a figure means, written beside where it is computed. Does not know: how to make it better.
"""
