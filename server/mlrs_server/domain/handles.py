"""Run handles: 32 random bits, 12 bits of group, 20 bits of row. 0 names no run."""

from __future__ import annotations

import secrets
from typing import Any

from numba.extending import register_jitable

ROW_BITS, GROUP_BITS = 20, 12
MAX_ROWS, MAX_GROUPS = 2**ROW_BITS, 2**GROUP_BITS
"""The largest number of runs of a group in memory, and of groups."""


def make_handle(group: int, row: int) -> int:
    """Return a new handle for a row of a group."""
    return (1 + secrets.randbelow(2**32 - 1)) << 32 | group << ROW_BITS | row


@register_jitable
def group_of(handle: Any) -> Any:
    """Return the group of a handle; of an array of handles, (n,), the groups, (n,)."""
    return handle >> ROW_BITS & (MAX_GROUPS - 1)


@register_jitable
def row_of(handle: Any) -> Any:
    """Return the row of a handle; of an array of handles, (n,), the rows, (n,)."""
    return handle & (MAX_ROWS - 1)
