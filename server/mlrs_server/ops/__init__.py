"""Maintenance: checks of a store, compaction of records, compilation before the first run.

It may import everything below the services; no messages of the contract.
"""
