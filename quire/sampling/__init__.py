"""From logits to tokens: a chain of small functions, one row at a time, so that a row never sees its neighbours.

Knows: arrays and how a draw was asked for. Does not know: requests, sequences, or text.
"""
