"""Knows: the same requests served by several policies, and what each takes in time and memory. Does not know: people.

asks --> Serving(scheduler of a policy, machine: real or modelled) --> visits, KV memory by use
"""
