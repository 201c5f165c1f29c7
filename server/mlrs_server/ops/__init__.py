"""What runs beside the calls: checks of a store, compaction, compiling before the first run.

It may import everything below the services; no messages of the contract.
"""
