"""The same ops as Triton kernels, for NVIDIA GPUs; one file per op holds its kernels and their launcher.

Knows: Triton, tensors. Does not know: ops, models. Nothing outside imports it before a torch device was asked for.
"""
