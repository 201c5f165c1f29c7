"""Runs may ask for a rescue, and records may hold that a state was restored. This refuses older daemons."""

from __future__ import annotations

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Change no table: chunks with extras have a format version of their own, which is a newer one now."""
