"""The transfer rule: which snapshot of a model advises which step (Shu et al., section 4.2)."""

from __future__ import annotations

from mlrs_core.compiled import compiled


@compiled
def snapshot_at(step: int, horizon: int, named: int, count: int) -> int:
    """Return the snapshot of a run at a step, 0 to count - 1.

    With a horizon, each of the `count` snapshots has one part of it: snapshot k while
    `step < (k + 1) * (horizon // count)`, the last one from there on. Without one, the run stays on
    the snapshot it names, by default the middle one.

    Args:
        step: from 0.
        horizon: in steps; -1 if unknown.
        named: -1 if none is.
        count: how many snapshots the model holds.
    """
    if horizon < 0:
        chosen = named if named >= 0 else count // 2
    else:
        part = horizon // count
        chosen = step // part if part > 0 else count - 1
    return min(chosen, count - 1)
