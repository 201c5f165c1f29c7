"""Meta mode: updates of networks of runs, applied exactly once, and new models made of adapted networks.

It may import runs, live runs, models and the core; no messages of the contract.
"""
