"""The shards of runs: replicas own runs by shard, not one by one."""

from __future__ import annotations

import zlib

SHARDS = 256
"""The number of shards. It cannot change: stores contain the shard of each run."""


def shard_of(name: str) -> int:
    """Return the shard, 0 to 255, of the runs of a group, or of a run without a group."""
    return zlib.crc32(name.encode()) & (SHARDS - 1)
