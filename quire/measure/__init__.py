"""What the kernels reach on this machine, and what number formats cost in quality: figures, not judgements.

Knows: ops, models, arrays, the clock. Does not know: commands, requests, how figures are shown.
"""
