"""The daemon: stores runs, answers observations with advice exactly once, and loses nothing.

Its folders are layers; each says in its `__init__.py` what it is for and what it may import. From top to
bottom: `daemon`, `assembly` and `config`; `rpc`; `telemetry`; `cluster`, `meta`, `ops` and `ranks`; `runs`;
`live`; `models`; `storage`; `auth`; `domain`; `system`. Torch is never imported.
"""

import sys

if sys.modules.keys().isdisjoint(("rich", "structlog")):
    # structlog imports rich where that is installed, for tracebacks with the values of variables, which the
    # daemon never logs. It takes a twentieth of the daemon's start.
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that there is none
    import structlog  # noqa: F401  # so that it is imported without

    del sys.modules["rich"]
