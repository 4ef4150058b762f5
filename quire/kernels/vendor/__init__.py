"""Libraries that may be there, behind the contracts of our own kernels: absent ones cost no import.

Knows: their interfaces. Does not know: who prefers them.
"""
