"""What users hold: advisors, runs and sweeps, threaded and for asyncio.

Each call checks its arguments (`mlrs.values`), hands them to the protocol and the transport, and waits for
the answer. It may import every other package of the client but the adapters, and no framework; only sweeps
import NumPy.
"""
