"""Maintenance: checks of a store, compaction of records.

It may import everything below the services; no messages of the contract.
"""
