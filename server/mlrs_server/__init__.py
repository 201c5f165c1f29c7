"""The daemon: stores runs, answers observations with advice exactly once, and loses nothing.

Its folders are layers; each says in its `__init__.py` what it is for and what it may import. From top to
bottom: `daemon`, `assembly` and `config`; `rpc`; `telemetry`; `cluster`, `meta`, `ops` and `ranks`; `runs`;
`live`; `models`; `storage`; `auth`; `domain`; `system`. Torch is never imported.
"""
