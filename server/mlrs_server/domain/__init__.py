"""The daemon's terms as pure types and rules: observations, the exactly-once ledger, meta updates, shards.

State in, state out: no clock, no store, no event loop, no messages. It may import the core, NumPy and Numba.
"""
