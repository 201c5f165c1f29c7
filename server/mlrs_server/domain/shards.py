"""Which shard a run is of: replicas own runs by shards, a few hundred of them, not one by one."""

from __future__ import annotations

import zlib

SHARDS = 256
"""How many there are. A store holds the shard of each of its runs, so the number stays."""


def shard_of(name: str) -> int:
    """Return the shard, 0 to 255, of runs of a group, or of a run that is in none."""
    return zlib.crc32(name.encode()) & (SHARDS - 1)
