"""Run handles: 32 random bits, 12 bits of group, 20 bits of row. 0 names no run."""

from __future__ import annotations

import secrets
from typing import Any

from numba.extending import register_jitable

ROW_BITS, GROUP_BITS = 20, 12
MAX_ROWS, MAX_GROUPS = 2**ROW_BITS, 2**GROUP_BITS
"""The most runs of a group that are in memory at once, and the most groups."""


def make_handle(group: int, row: int) -> int:
    """Return a fresh handle for a row of a group."""
    return (1 + secrets.randbelow(2**32 - 1)) << 32 | group << ROW_BITS | row


@register_jitable
def group_of(handle: Any) -> Any:
    """Return the number of the group that a handle names; of an array of handles, (n,), all of them."""
    return handle >> ROW_BITS & (MAX_GROUPS - 1)


@register_jitable
def row_of(handle: Any) -> Any:
    """Return the number of the row that a handle names; of an array of handles, (n,), all of them."""
    return handle & (MAX_ROWS - 1)
