"""From logits to tokens: how each draw was asked for, as the kernel's records, and its outcome in the loop's words.

Knows: arrays and how a draw was asked for. Does not know: requests, sequences, or text.
"""
