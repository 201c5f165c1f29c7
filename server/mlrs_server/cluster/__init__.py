"""Replicas over one database: leases, shards and epochs decide which replica owns which runs.

Leases give liveness, epochs give safety: each transaction that writes checks the epochs of its shards, so
that a replica that was partitioned, or suspended and resumed, writes nothing. It may import runs, live
runs and the store.
"""
