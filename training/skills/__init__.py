"""One file a skill: `train(rng)` writes a conversation, `held_out(rng)` a question that training never shows.

Knows no tokens and no model.
"""
