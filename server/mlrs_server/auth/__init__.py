"""Authentication and authorization: tokens, roles, limits of tenants, TLS, and where a daemon may listen.

`mlrs_server.rpc.status` asks it about every call. It may import `mlrs_server.system`; never runs, models or
the store.
"""
