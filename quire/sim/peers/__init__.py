"""Knows: how others schedule, as policies over the same steps. Does not know: their code, or their kernels' speed.

A policy here takes requests in and emits steps as our scheduler does (`add`, `schedule`, `settle`), so that any runner
and any modelled device can run it. Its rules stand at the top of its file, with what they imitate. Where a rule leaves
something open, the choice is the one that makes the policy faster.
"""
