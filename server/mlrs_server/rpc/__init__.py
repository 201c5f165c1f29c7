"""The services of the contract: they turn messages into calls of other folders, and results into messages.

The only package that knows messages and gRPC services: `convert/` turns messages into the daemon's types and
back, and `status.py` is the one table from exceptions to status codes.
"""
