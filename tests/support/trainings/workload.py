"""Runs for tests under fire: what each is opened with, how long it is, what its losses are.

All of it follows from a run's id, so that a training process which was killed, and the test that checks
it, know the same. Without NumPy: a training process starts quickly.
"""

from __future__ import annotations

import zlib
from typing import Any

HORIZON = 100
KINDS: tuple[dict[str, Any], ...] = (
    {"horizon": HORIZON, "num_classes": 10},
    {"optimizer": "adam"},
    {"policy": "cosine", "base_lr": 0.1, "horizon": HORIZON},
    {"policy": "plateau", "base_lr": 0.05, "horizon": HORIZON},
)
"""What runs are opened with: models with and without a horizon, schedules with and without a memory."""


def _number(run_id: str) -> int:
    return zlib.crc32(run_id.encode())


def settings_of(run_id: str) -> dict[str, Any]:
    """Return the arguments of `Advisor.run`, beside the id."""
    return KINDS[_number(run_id) % len(KINDS)]


def steps_of(run_id: str) -> int:
    """Return how many steps a run has: 40 to 119."""
    return 40 + _number(run_id) // 7 % 80


def loss_of(run_id: str, step: int) -> float:
    """Return a loss: it falls, it is noisy, now and then it is none, or gigantic."""
    noise = (step * 7919 + _number(run_id)) % 997 / 997
    if noise > 0.985:
        return (float("nan"), float("inf"), -float("inf"), 1e300)[step % 4]
    return 2.5 / (1 + 0.05 * step) + 0.3 * noise
