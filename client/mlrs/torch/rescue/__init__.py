"""Rescue in a PyTorch training: one copy in host memory, when it is made, and how it is put back.

health.py         decides at each step, from its loss and its advice, on the process that talks to the daemon
training_copy.py  the copy of the training, on each rank
memory.py         how much host memory is free
rescue.py         what all ranks do at a step: copy, restore, say so, in any order of a loop's calls

It may use the copies of tensors, the shards and the ranks; it knows no scheduler.
"""
