"""Meta mode: updates of runs' networks, applied exactly once, and new models averaged from adapted weights.

It may import runs, live runs, models and the core; no messages of the contract.
"""
