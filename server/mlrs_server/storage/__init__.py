"""Storage of runs and models in SQL databases: the `Store` protocol, its types, and its implementation.

It may import the domain and the core. What differs between SQLite and PostgreSQL is in `engines/`; each
change of the tables is a revision in `migrations/`.
"""

from __future__ import annotations

from mlrs_server.storage.factory import open_store, open_to_read
from mlrs_server.storage.fence import Fence, NoFence
from mlrs_server.storage.positions import ANY, Creation, Position, Recency, RunTraits
from mlrs_server.storage.protocol import (
    NewRun,
    Observations,
    RememberedTask,
    RunKey,
    RunUpdates,
    Store,
    StoredNetwork,
    StoredRun,
)
from mlrs_server.storage.sql import SqlStore

__all__ = [
    "ANY",
    "Creation",
    "Fence",
    "NewRun",
    "NoFence",
    "Observations",
    "Position",
    "Recency",
    "RememberedTask",
    "RunKey",
    "RunTraits",
    "RunUpdates",
    "SqlStore",
    "Store",
    "StoredNetwork",
    "StoredRun",
    "open_store",
    "open_to_read",
]
