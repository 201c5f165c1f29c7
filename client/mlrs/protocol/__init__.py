"""The rules of communication with daemons: addresses, streams, joining again, deadlines.

State machines shared by the threaded client and the one for asyncio: no thread, no event loop, no socket.
It may import `mlrs.ledger` and `mlrs.values`; never grpc, and no messages of the contract.
"""
