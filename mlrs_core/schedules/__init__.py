"""Schedules designed by hand, served as networks are: a run names one in place of a model.

    spec.py       which schedule: its kind, its numbers, their defaults and ranges, its digest
    base.py       what every schedule has: the base LR, and the warmup
    formulas.py   the schedules that are a function of the step
    metric.py     the schedules that watch the loss
    kernel.py     from a spec to its `Policy`

This module itself imports the spec only: `mlrs_core.config` holds one, and the kernels need configs.
"""

from mlrs_core.schedules.spec import ScheduleKind, ScheduleSpec

__all__ = ["ScheduleKind", "ScheduleSpec"]
