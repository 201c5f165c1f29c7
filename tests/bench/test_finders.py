"""Learning-rate finders of other packages in the benchmark: quiet, without a trace, and charged."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

import mlrs
from mlrs_bench.errors import BenchError
from mlrs_bench.methods import Method, Training
from mlrs_bench.methods.finders import HIGHEST, LOWEST, STEPS, _followed_by_linear, _lightning, _steepest
from mlrs_bench.rules import RULES
from mlrs_bench.task import Task
from tests.bench.conftest import FINDERS, Watch
from tests.bench.loop import Loop

HORIZON = 200
WARMUP = 5
"""Steps in which the line warms up: a twentieth of those that are left."""
FIND = {"torch-lr-finder+linear": _steepest, "lightning+linear": _lightning}


def test_finders_are_versions_of_packages(methods: dict[str, Method]) -> None:
    """A new release of a package makes the results of its finder be computed again."""
    for name in FINDERS:
        package = name.removesuffix("+linear")
        assert methods[name].identity.startswith(f"{package} {version(package)}")


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FINDERS)
def test_a_finder_leaves_the_training_as_it_was(
    watch_long: Watch, methods: dict[str, Method], name: str, optimizer: str
) -> None:
    """Weights, running statistics and random numbers are back, and the first batch has the same loss."""
    default = methods["constant"].base_lrs[optimizer]
    watched = watch_long(name, optimizer=optimizer)
    assert watched.changed == []
    assert watched.losses[0] == watch_long("constant", optimizer=optimizer, base_lr=default).losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FINDERS)
def test_a_line_from_the_rate_follows(
    watch_long: Watch,
    methods: dict[str, Method],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    optimizer: str,
) -> None:
    """The steps of the pass are charged; in those left, the LR rises to what was suggested and falls to 0."""
    suggested: list[float | None] = []

    def find(training: Training) -> float | None:
        suggested.append(FIND[name](training))
        return suggested[-1]

    monkeypatch.setitem(methods, name, replace(methods[name], control=_followed_by_linear(find)))
    watched = watch_long(name, optimizer=optimizer)
    (rate,) = suggested
    assert rate is not None
    assert LOWEST / 10 < rate <= HIGHEST
    assert (watched.spent, len(watched.losses)) == (STEPS, HORIZON - STEPS)
    assert watched.cell.lr_curve[-1][0] == HORIZON - STEPS - 1
    assert max(watched.lrs) < rate * (1 + 1e-9)
    line = np.array(watched.lrs[WARMUP:])
    assert np.diff(line) == pytest.approx(-rate / (HORIZON - STEPS - WARMUP), rel=1e-3)
    assert 0.0 < line[-1] < 0.02 * rate


@pytest.mark.parametrize("name", FINDERS)
def test_a_finder_says_nothing(
    watch_long: Watch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Neither package prints, logs or warns, and what other code logs and warns of later is let through."""
    filters = list(warnings.filters)
    watch_long(name)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert warnings.filters == filters
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("found", [None, math.nan, math.inf, 0.0, -1.0])
def test_without_a_usable_rate_the_default_one_follows(
    watch_long: Watch, methods: dict[str, Method], monkeypatch: pytest.MonkeyPatch, found: float | None
) -> None:
    """Where a package suggests none, or none that is a positive number, the line begins at the default LR."""
    name = FINDERS[0]
    control = _followed_by_linear(lambda _training: found)
    monkeypatch.setitem(methods, name, replace(methods[name], control=control))
    watched = watch_long(name)
    assert 0.8 * RULES["sgd"].default_lr < max(watched.lrs) <= RULES["sgd"].default_lr
    assert (watched.spent, watched.changed) == (STEPS, [])


@pytest.mark.parametrize("name", FINDERS)
def test_a_task_that_is_shorter_than_the_pass_is_refused(
    methods: dict[str, Method], long: Task, advisor: mlrs.Advisor, name: str
) -> None:
    """A training that would have no step left ends with the reason."""
    training = Loop(replace(long, horizon=STEPS), "sgd", advisor).training
    with pytest.raises(BenchError, match="the finder takes 100 steps, and the task has 100"):
        methods[name].control(training)
