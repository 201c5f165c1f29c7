"""Memory that the process has no more use for goes back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Give free memory back: some milliseconds, so to be done after much was let go of."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library, or a system without such a handle
        return
    trim(0)
