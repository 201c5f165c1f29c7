"""The state of a run after a step, stored beside its record of observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Policy
from mlrs_server.domain.ledger import RunStatus


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """The state of a run after a step."""

    status: RunStatus
    next_step: int
    last_loss: float
    """The last loss observed; NaN before the first."""
    last_lr: float
    """The last learning rate advised; NaN before the first."""
    last_reason: int
    """The last `AdviceReason`, with the flags of `ledger.py`; 0 before the first."""
    bad_losses: int
    """The number of non-finite losses since the last finite one."""
    state: npt.NDArray[np.float32]
    """The policy's state, (state_size,)."""


def snapshot_of(record: np.void, state: npt.NDArray[np.float32]) -> RunSnapshot:
    """Return the snapshot of a record and a state; a copy."""
    return RunSnapshot(
        status=RunStatus(int(record["status"])),
        next_step=int(record["next_step"]),
        last_loss=float(record["last_loss"]),
        last_lr=float(record["last_lr"]),
        last_reason=int(record["last_reason"]),
        bad_losses=int(record["bad_losses"]),
        state=state.copy(),
    )


def first_snapshot(policy: Policy) -> RunSnapshot:
    """Return the snapshot of a run before its first step."""
    return RunSnapshot(
        status=RunStatus.ACTIVE,
        next_step=0,
        last_loss=float("nan"),
        last_lr=float("nan"),
        last_reason=0,
        bad_losses=0,
        state=policy.init_state(1)[0],
    )
