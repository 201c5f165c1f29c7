"""The steps whose signals are computed: all at first, where a training changes fast, and then one in eight.

The numbers are part of what trained networks expect. They also set the cost: after the first steps, an eighth
of the cost of one step's signals.
"""

from __future__ import annotations

ALL_UNTIL = 100
"""Every step before this one is measured."""
EVERY = 8
"""From then on, the steps that are multiples of this number are."""


def is_measured(step: int) -> bool:
    """Return whether a step's signals are computed, which the next observation carries."""
    return step < ALL_UNTIL or step % EVERY == 0


def is_copied(step: int) -> bool:
    """Return whether the weights before a step are copied: for its own update, or as that before the next."""
    return is_measured(step) or is_measured(step + 1)
