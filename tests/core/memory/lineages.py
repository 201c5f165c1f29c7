"""Past runs of a task, for tests of its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mlrs_core.config import Measure, Optimizer, Recalled
from mlrs_core.memory import Arm, Ending, Explore, PastRun, Setting
from mlrs_core.memory.carrying import octave

SETTING = Setting(optimizer=Optimizer.ADAM, momentum=None, horizon=1000, batch_size=64)
NETWORK = "net@0123456789ab"


def past(number: int = 0, *, setting: Setting = SETTING, **values: Any) -> PastRun:
    """Return a run that reached its end, by default one that followed WSD from 0.01 on."""
    own = {name: getattr(setting, name) for name in ("optimizer", "momentum", "horizon", "batch_size")}
    known: dict[str, Any] = {
        "run_id": f"run-{number}",
        "ending": Ending.REACHED,
        "policy": "wsd",
        "learning_rate": 0.01,
        "training_loss": 1.0,
        **own,
        **values,
    }
    if known["policy"] == NETWORK:
        known["learning_rate"] = None
    return PastRun(**known)


def lineage(*runs: dict[str, Any], setting: Setting = SETTING) -> list[PastRun]:
    """Return runs, given the oldest first, as the memory has them: the newest first."""
    return [past(number, setting=setting, **values) for number, values in enumerate(runs)][::-1]


def bowl(best: float, *learning_rates: float, **values: Any) -> list[dict[str, Any]]:
    """Return runs whose training loss is lowest at the learning rate `best`, an octave from it 5 % higher."""
    return [
        {"learning_rate": rate, "training_loss": 1.0 + 0.05 * math.log2(rate / best) ** 2, **values}
        for rate in learning_rates
    ]


def expecting(low: float | None, high: float | None, measure: Measure = Measure.TRAINING_LOSS) -> Recalled:
    """Return a decision that expected a run to end between two values."""
    return Recalled(why="", decided=True, measure=measure, expected_low=low, expected_high=high)


def at(arm: Arm, setting: Setting = SETTING) -> float:
    """Return the octave of an arm on the axis of a setting."""
    return arm.lr_offset if arm.learning_rate is None else octave(arm.learning_rate, setting, setting)


def tried(runs: Sequence[PastRun], arm: Arm, setting: Setting = SETTING) -> list[float]:
    """Return the octaves of the runs whose learning rates are of the kind of an arm's."""
    if arm.learning_rate is None:
        return [run.lr_offset for run in runs if run.learning_rate is None]
    return [octave(run.learning_rate, run.setting, setting) for run in runs if run.learning_rate is not None]


EXPLORES = st.sampled_from(list(Explore))
FAMILY = (Optimizer.ADAM, Optimizer.ADAMW)
_LOSSES = st.floats(1e-6, 1e6) | st.sampled_from([0.0, -1.0, 1e300])


@st.composite
def runs(draw: st.DrawFn, *, at_home: bool = False) -> PastRun:
    """Draw a past run of any kind, of the family of Adam; `at_home`: of `SETTING`."""
    setting = SETTING
    if not at_home:
        setting = Setting(
            optimizer=draw(st.sampled_from(FAMILY)),
            momentum=None,
            horizon=draw(st.sampled_from([10, 1000, 50_000])),
            batch_size=draw(st.sampled_from([None, 16, 64])),
        )
    value = st.none() | _LOSSES
    low, high = sorted((draw(_LOSSES), draw(_LOSSES)))
    return past(
        draw(st.integers(0, 10**6)),
        setting=setting,
        ending=draw(st.sampled_from(list(Ending))),
        policy=draw(st.sampled_from(["wsd", "linear", NETWORK, "other@0123456789ab"])),
        learning_rate=draw(st.floats(1e-5, 1.0)),
        lr_offset=draw(st.sampled_from([-1.0, 0.0, 0.5])),
        searched=draw(st.booleans()),
        metric=draw(value),
        higher_is_better=draw(st.booleans()),
        validation_loss=draw(value),
        training_loss=draw(value),
        recalled=draw(st.none() | st.sampled_from([expecting(None, None), expecting(low, high)])),
    )


LINEAGES = st.lists(runs() | runs(at_home=True), max_size=12)
