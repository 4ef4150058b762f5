"""Each op in plain NumPy, slow and clear: the definition of right.

Knows: NumPy. Does not know: anything else.
"""
