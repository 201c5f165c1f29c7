"""Several daemons over one database: which replica owns which runs, by leases, shards and epochs.

The lease gives liveness, the epoch gives safety: each transaction that writes checks the epochs of its
shards, so that a replica that was cut off, or stopped and woken, writes nothing. It may import runs, live
runs and the store.
"""
