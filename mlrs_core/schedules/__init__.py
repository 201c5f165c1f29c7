"""Schedules designed by hand, served as networks are: a run names one in place of a model.

    base.py       what every schedule has: the base LR, and the warmup
    formulas.py   the schedules that are a function of the step
    metric.py     the schedules that watch the loss
    rounds.py     steps of the same run, one after another
    kernel.py     from a spec to its `Policy`

Which schedule a run follows, and its numbers, is `mlrs_core/config/schedule.py`.
"""
