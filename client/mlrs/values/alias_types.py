"""What a daemon reports of the aliases of models."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AliasChange:
    """A model that an alias has pointed at."""

    time: dt.datetime | None
    """When the alias was pointed at it, in UTC; `None`: it is not known, or mlrs ships the alias so."""
    model: str
    """The model: `name@digest`, or a name."""
    cause: str
    """What changed the alias: `set`, `promote` or `rollback`."""
