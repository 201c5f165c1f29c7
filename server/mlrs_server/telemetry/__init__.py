"""Metrics, structured logs without secrets, and health checks, for operators.

It reads counters that other folders maintain. It may import everything below the services; no messages of the
contract.
"""
