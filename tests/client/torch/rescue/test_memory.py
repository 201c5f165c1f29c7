"""The free memory of a host."""

from __future__ import annotations

from mlrs.torch.rescue.memory import free_memory


def test_free_memory_is_known_on_linux() -> None:
    """It is a number of bytes, or unknown."""
    free = free_memory()
    assert free is None or free > 2**20
