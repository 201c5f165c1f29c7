"""How the daemon is, as plain JSON."""

from __future__ import annotations

from typing import Any

from mlrs.types import DaemonInfo, DaemonStatus
from mlrs_web.views.plain import plain


def daemon(info: DaemonInfo, address: str) -> dict[str, Any]:
    """Return which daemon it is."""
    fields: dict[str, Any] = plain(info)
    return {"address": address, **fields}


def health(status: DaemonStatus) -> dict[str, Any]:
    """Return the state of the daemon, and what of it is good or bad."""
    return {"status": plain(status), "checks": {"store": status.store.works}}
