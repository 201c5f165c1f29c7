"""Where the tasks of an update are computed. The result does not depend on it, nor on how many compute.

engine.py      the protocol, and what is computed: jobs, which are pure
choice.py      which engine, from what a user asked for
in_process.py  here, one after the other
local.py       in processes of this machine ...
worker.py      ... and what one of them does
cluster.py     in a Ray cluster, of one machine or many; needs the extra `ray`
"""
