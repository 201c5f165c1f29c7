"""The client's state of a run: its next step, what to send again, and the answers without a daemon.

Pure state: no thread, no event loop, no socket, and no messages of the contract. It may import `mlrs.values`
and the schedules; only the columns of sweeps (`sweep_entries.py`) import NumPy.
"""
