"""Chunks of records have a format version. Daemons that do not know it are refused, by this revision."""

from __future__ import annotations

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Change no table: chunks of before are read as they are."""
