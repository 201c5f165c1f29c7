"""The daemon's use of the operating system: atomic writes, locks, the data folder, background threads.

Nothing here knows runs, models or the contract. It may import `mlrs_server.errors` and the standard library
only.
"""
