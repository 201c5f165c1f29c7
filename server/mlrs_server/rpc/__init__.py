"""The services of the contract: messages in, calls of the packages below, messages and status codes out.

The only package that knows messages and grpc services: `convert/` turns messages into the daemon's types and
back, and `status.py` is the one table from exceptions to status codes.
"""
