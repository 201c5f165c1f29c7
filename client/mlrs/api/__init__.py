"""What users hold: advisors, runs and sweeps, threaded and for asyncio.

Each call checks its arguments (`mlrs.values`), passes them to the protocol and the transport, and waits for
the answer. It may import every folder of the client except the adapters, and no framework; only sweeps import
NumPy.
"""
