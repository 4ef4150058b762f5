"""The doors: one file per operation, with its contract, its checks and its choice of kernel.

Knows: kernels. Does not know: models, requests, files.
"""
