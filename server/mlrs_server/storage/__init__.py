"""Runs on disk: what a store must offer, and the types that go in and out.

protocol.py    what a store offers
sql.py         the store, in the SQL that engines share
dialect.py     what differs between engines; sqlite.py and postgresql.py are those there are
opening.py     by a file or a URL
tables.py      the tables, and runs as rows
schema.py      tables made or brought up to date, by migrations/
fence.py       who may write
observation_log.py   the record of runs: read, recalled for many runs at once, cut, merged
adapted.py     meta updates and adapted networks, written and read
naming.py      models, their names and aliases, written and read
faults.py      what is wrong with a database, and what to do
bounded.py     a connection to PostgreSQL on which nothing waits for ever
chunks.py      the record of a run as bytes, of one or of thousands at once
codec.py       snapshots, meta updates, networks and configs as bytes
sealing.py     the checksum behind all of these
"""

from __future__ import annotations

from mlrs_server.storage.fence import Fence, NoFence
from mlrs_server.storage.opening import open_store, open_to_read
from mlrs_server.storage.protocol import (
    NewRun,
    Observations,
    Recency,
    RunKey,
    RunUpdates,
    Store,
    StoredNetwork,
    StoredRun,
)
from mlrs_server.storage.sql import SqlStore

__all__ = [
    "Fence",
    "NewRun",
    "NoFence",
    "Observations",
    "Recency",
    "RunKey",
    "RunUpdates",
    "SqlStore",
    "Store",
    "StoredNetwork",
    "StoredRun",
    "open_store",
    "open_to_read",
]
