"""The CPU kernels: C++ compiled once per instruction set into the extension module `_cpu`.

Knows: raw arrays and sizes. Does not know: models, requests; Python only in its `bindings*.cpp`.
"""
