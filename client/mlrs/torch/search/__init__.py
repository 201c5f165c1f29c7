"""The search of a PyTorch training for the learning rate to begin with.

It makes trials by a loop's own steps, on one rank or on all, and puts everything back to the bit.
It may use the hook, the ranks, the shards and the optimizer's settings; it knows no scheduler.
"""
