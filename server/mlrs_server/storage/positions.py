"""What lists of runs have, and where their pages begin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recency:
    """A position in a list of runs by recency; without arguments, its beginning."""

    newest: float = math.inf
    """The newest `update_time` of all runs when the first page was read."""
    update_time: float = math.inf
    """The `update_time` of the last run listed; greater than `newest` once newer runs are being listed."""
    run_id: str = ""
    """The id of the last run listed, without its tenant."""


@dataclass(frozen=True)
class Creation:
    """A position in a list of runs by creation, the newest first; without arguments, its beginning."""

    create_time: float = math.inf
    """The `create_time` of the last run listed."""
    run_id: str = ""
    """The id of the last run listed, without its tenant."""


Position = str | Recency | Creation
"""A position in a list of runs, and the order of the list. A string is the id of the last run listed, without
its tenant, in a list by id; "" is the beginning."""


@dataclass(frozen=True, kw_only=True)
class RunTraits:
    """What the runs of a list have in common; without arguments, nothing."""

    contains: str = ""
    """Their ids, without the tenant, contain this."""
    model: str = ""
    """The name of their model, as the tenant gives it."""
    digest: str = ""
    """The digest of their model begins with this."""
    task: str = ""
    """The name of their task, as the tenant gives it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """They have all of these tags with these values; "" is any value."""


ANY = RunTraits()
"""The traits of all runs."""
