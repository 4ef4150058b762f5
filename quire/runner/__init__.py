"""Knows: how a step is computed, by the model or by its stand-in. Does not know: who runs next."""
