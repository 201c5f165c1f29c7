"""What a caller may do with runs: open, rewind, finish, delete, read, follow.

It may import `mlrs_server.live` and what that imports; no messages of the contract.
"""
