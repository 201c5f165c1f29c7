"""Who may do what, and how much of it.

roles.py     what each RPC needs
tokens.py    tokens, and the file that they are kept in
book.py      the tokens that a daemon knows, as their file changes
caller.py    who calls: a tenant, a role, and what is left of its limits
gate.py      who is let in: callers from tokens, for every call
refusals.py  who was not let in, in the log
limits.py    the limits of a tenant, and the rate of its messages
quota.py     how many runs a tenant may have
tls.py       certificates, read again when they change
exposure.py  where a daemon may listen without any of this
redact.py    no secret in a log
"""
