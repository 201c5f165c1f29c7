"""Connections to daemons: channels, streams, the thread that makes the calls, and an orderly end.

The only package that opens gRPC channels. It drives the state machines of `mlrs.protocol` over real
connections. It may import `mlrs.protocol`, `mlrs.wire` and `mlrs.values`.
"""
