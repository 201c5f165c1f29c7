"""Records may hold signals and validation losses. This refuses daemons that would advise without them."""

from __future__ import annotations

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Change no table: chunks with extras have a format version of their own, others are as before."""
