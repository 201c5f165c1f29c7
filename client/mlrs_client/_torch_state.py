"""What a checkpoint holds of a scheduler, and whether a run can go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from mlrs_client import _arguments as check
from mlrs_client._exceptions import InvalidArgumentError


@final
@dataclass(frozen=True)
class State:
    """A scheduler between two steps: plain values, whose names are the keys of its `state_dict`."""

    run_id: str
    step: int
    """The one that comes next."""
    last_lr: float | None
    """The last advice; `None` before the first."""
    base_lrs: list[float]
    """The initial LR of each parameter group."""


def state_of(saved: Mapping[str, Any], groups: int) -> State:
    """Return a saved state that a run can go on from.

    Args:
        saved: what `AdvisedLR.state_dict` returned.
        groups: how many parameter groups the optimizer has.

    Raises:
        InvalidArgumentError: it is not such a state.
    """
    keys = {field.name for field in fields(State)}
    if not isinstance(saved, Mapping):
        raise InvalidArgumentError(
            f"state_dict must be a dict, as AdvisedLR.state_dict returns; is {saved!r:.100}",
            field="state_dict",
        )
    if not saved.keys() >= keys:
        raise InvalidArgumentError(
            f"state_dict lacks {sorted(keys - saved.keys())}: it is not of an AdvisedLR", field="state_dict"
        )
    last_lr, rates = _rates_of(saved)
    if len(rates) > groups:
        raise InvalidArgumentError(
            f"state_dict is of {len(rates)} parameter groups, the optimizer has {groups}: add its groups"
            " before loading",
            field="state_dict",
        )
    return State(check.run_id(saved["run_id"]), check.step(saved["step"]), last_lr, rates)


def _rates_of(saved: Mapping[str, Any]) -> tuple[float | None, list[float]]:
    """Return the last advice and the initial LRs of a state.

    Raises:
        InvalidArgumentError: one is not a number.
    """
    last_lr = saved["last_lr"]
    try:
        return None if last_lr is None else float(last_lr), [float(lr) for lr in saved["base_lrs"]]
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"state_dict holds learning rates that are not numbers ({error})", field="state_dict"
        ) from error
