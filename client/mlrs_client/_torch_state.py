"""The initial learning rates that a checkpoint holds of a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlrs_client import InvalidArgumentError


def base_lrs_of(saved: Mapping[str, Any], groups: int) -> list[float]:
    """Return the initial LR of each parameter group, for an optimizer with so many groups.

    Raises:
        InvalidArgumentError: there are none, or more than groups.
    """
    try:
        base_lrs = [float(lr) for lr in saved["base_lrs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"state_dict: its base_lrs are not numbers ({error!r}): it is not of an AdvisedLR",
            field="state_dict",
        ) from error
    if len(base_lrs) > groups:
        raise InvalidArgumentError(
            f"state_dict is of {len(base_lrs)} parameter groups, the optimizer has {groups}: add its groups"
            " before loading",
            field="state_dict",
        )
    return base_lrs
