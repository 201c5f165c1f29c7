"""The address of a daemon where the user gives none."""

from __future__ import annotations

import os

from mlrs.errors import InvalidArgumentError

TARGET_VARIABLE = "MLRS_TARGET"
"""The environment variable of the default address."""


def default_target() -> str:
    """Return the address of the daemon to talk to: that of the environment variable `MLRS_TARGET`.

    Raises:
        InvalidArgumentError: there is none.
    """
    if target := os.environ.get(TARGET_VARIABLE):
        return target
    raise InvalidArgumentError(
        f"target names no daemon: pass its address, or set {TARGET_VARIABLE}", field="target"
    )
