"""What the client lets users put on runs."""

from __future__ import annotations

from mlrs.values import notes
from mlrs_server.domain import notes as of_daemon


def test_limits_are_those_of_the_daemon() -> None:
    """The client refuses what the daemon would refuse, and nothing else."""
    for name in ("MAX_TAGS", "MAX_VALUE", "MAX_NOTE", "TAG"):
        assert getattr(notes, name) == getattr(of_daemon, name)
