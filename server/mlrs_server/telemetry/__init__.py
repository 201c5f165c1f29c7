"""What the daemon tells operators: metrics, structured logs without secrets, and health.

It reads counters that are kept anyway. It may import everything below the services; no messages of the
contract.
"""
