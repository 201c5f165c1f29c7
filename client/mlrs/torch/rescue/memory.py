"""The free memory of a host."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes that this host, or this process's control group, has free; `None` if unknown."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(limit - used)
    except (OSError, ValueError):  # another system, or no limit ("max")
        pass
    return min(found, default=None)
