"""Conversion of messages to the client's values and back, unary calls as values, and statuses as errors.

The only package that knows protobuf messages, and the only place where a gRPC status becomes an exception.
It may import `mlrs_proto`, protobuf, and `mlrs.values`.
"""
