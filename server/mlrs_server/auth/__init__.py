"""Who may do what, and how much: tokens, roles, limits of tenants, TLS, and where a daemon may listen.

It decides; `mlrs_server.rpc.status` asks it for each call. It may import `mlrs_server.system`; never runs,
models or the store.
"""
