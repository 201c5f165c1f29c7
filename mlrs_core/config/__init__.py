"""What a run's config says, with the ranges and defaults of its numbers.

    run.py             the config of a run: what its advice depends on besides its losses
    schedule.py        the schedule that it follows in place of a model
    meta.py            how its network goes on learning
    ranks.py           how the ranks of a distributed job share it
    found.py           what a search before its first step has found
    recalled.py        what the memory of its task has decided
    fields.py          which fields are given, and how one config completes another
    ranges.py          checks of numbers against their ranges
    default_rates.py   the learning rate of a run that names none; compiled, so imported by name

It imports nothing of the core but `errors.py`, and `compiled.py` in `default_rates.py`.
"""

from mlrs_core.config.found import FoundRate
from mlrs_core.config.meta import DEFAULT_META, AdaptScope, MetaConfig, MetaOrder
from mlrs_core.config.ranks import DEFAULT_RANKS, MAX_WORLD_SIZE, RankReduction, RanksConfig
from mlrs_core.config.recalled import Measure, Recalled
from mlrs_core.config.run import MAX_HORIZON, MAX_OFFSET, Optimizer, RunConfig
from mlrs_core.config.schedule import ScheduleKind, ScheduleSpec

__all__ = [
    "DEFAULT_META",
    "DEFAULT_RANKS",
    "MAX_HORIZON",
    "MAX_OFFSET",
    "MAX_WORLD_SIZE",
    "AdaptScope",
    "FoundRate",
    "Measure",
    "MetaConfig",
    "MetaOrder",
    "Optimizer",
    "RankReduction",
    "RanksConfig",
    "Recalled",
    "RunConfig",
    "ScheduleKind",
    "ScheduleSpec",
]
