"""Runs on disk: what a store must offer, and the types that go in and out."""

from __future__ import annotations

from mlrs_server.store.protocol import (
    NewRun,
    Observations,
    RunUpdates,
    Store,
    StoredRun,
)
from mlrs_server.store.sqlite import open_sqlite

__all__ = ["NewRun", "Observations", "RunUpdates", "Store", "StoredRun", "open_sqlite"]
