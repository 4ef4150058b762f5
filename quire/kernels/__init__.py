"""Kernels: the arithmetic behind the doors of `quire.ops`, one folder per backend.

Knows: nothing by itself; each backend is imported by the door that uses it. Does not know: models, requests.
"""
