"""The daemon's terms as pure types and rules: observations, the exactly-once ledger, meta updates, shards.

Functions of state: no clock, store, event loop or messages. It may import the core, NumPy and Numba.
"""
