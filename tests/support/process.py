"""What the system says of a process: memory and open files."""

from __future__ import annotations

import os
from pathlib import Path

MIB = 2**20


def resident_bytes(pid: int | None = None) -> int:
    """Return how much memory a process has resident; of this one if none is named."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
