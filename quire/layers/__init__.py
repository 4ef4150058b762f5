"""Layers hold weights and call ops; positions and the cache come as arguments.

Knows: ops, weight formats. Does not know: requests, batching, files.
"""
