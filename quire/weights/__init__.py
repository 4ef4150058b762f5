"""Reading checkpoints.

Knows: files of weights. Does not know: layers, the network, devices.
"""
