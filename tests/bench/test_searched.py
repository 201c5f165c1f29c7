"""Searches in the benchmark: what they cost a training, what they leave behind, and what follows them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlrs
from mlrs.torch import AdvisedLR
from mlrs_bench.bench import Request, Table
from mlrs_bench.errors import BenchError
from mlrs_bench.methods import SEARCH_STARTS, Method
from mlrs_bench.methods.validating import validation_steps
from mlrs_bench.report.figures.methods import ADVISED, SEARCHES
from mlrs_bench.rules import RULES
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.search.race import ADAM, SGD
from tests.bench.conftest import TASKS, Watch, write_network
from tests.bench.watching import Watched

HORIZON = 200
EVERY = 5
"""Steps from one point of a curve to the next."""
WARMUP = 10
"""Steps in which schedules warm up: a twentieth of the horizon."""


def found_by(watched: Watched) -> mlrs.types.FoundRate:
    """Return what the search before a training found."""
    assert watched.search is not None
    assert isinstance(watched.search.next, mlrs.types.FoundRate)
    return watched.search.next


@pytest.mark.parametrize("name", [ADVISED, "search-linear", "search-cosine", "search-schedule"])
def test_a_training_has_fewer_steps_by_those_of_its_search(watch_long: Watch, name: str) -> None:
    """The steps of all trials are charged: the training ends earlier, and so do its curves."""
    watched = watch_long(name)
    assert watched.search is not None
    assert watched.spent == sum(trial.steps for trial in watched.search.trials) > 0
    assert found_by(watched).charged
    steps = HORIZON - watched.spent
    assert len(watched.losses) == steps
    for curve in (watched.cell.train_curve, watched.cell.lr_curve):
        assert [step for step, _ in curve] == list(range(EVERY - 1, steps, EVERY))
    assert watched.cell.horizon == HORIZON


def test_an_uncharged_search_costs_the_training_nothing(watch_long: Watch) -> None:
    """It finds what the charged one finds, and the training has all its steps."""
    watched = watch_long("search-uncharged")
    found = found_by(watched)
    assert found.learning_rate == found_by(watch_long(ADVISED)).learning_rate
    assert (found.charged, watched.spent) == (False, 0)
    assert len(watched.losses) == HORIZON
    assert watched.cell.train_curve[-1][0] == watched.cell.lr_curve[-1][0] == HORIZON - 1


@pytest.mark.parametrize(
    ("name", "quarter", "end"),
    [
        ("search-signals", 1.0, 0.03),
        ("search-schedule", 1.0, 0.03),
        ("search-linear", 0.75, 0.03),
        ("search-cosine", 0.857, 0.001),
    ],
)
def test_what_follows_a_search(watch_long: Watch, name: str, quarter: float, end: float) -> None:
    """A schedule warms up to the rate that was found, and has its shape down to where the training ends.

    The daemon chooses one, too, if its network would go to a rate of its own.
    """
    watched = watch_long(name)
    rate = found_by(watched).learning_rate
    after = np.array(watched.lrs[WARMUP:]) / rate
    assert max(watched.lrs) == pytest.approx(rate)
    assert after[len(after) // 4] == pytest.approx(quarter, abs=0.01)
    assert 0.0 < after[-1] < end


@pytest.mark.parametrize(
    ("name", "signals", "validations", "rescue"),
    [
        (ADVISED, True, True, True),
        ("search-uncharged", True, True, True),
        ("search-signals", True, False, True),
        ("search-losses", False, False, True),
        ("search-schedule", False, False, False),
    ],
)
def test_what_the_daemon_is_told(
    watch_long: Watch,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    signals: bool,
    validations: bool,
    rescue: bool,
) -> None:
    """Signals are sent if the method says so, validation losses told before their steps; some have rescue."""
    sent, told = [], []
    validate = mlrs.Run.validate

    def advised(optimizer: torch.optim.Optimizer, run: mlrs.Run, **options: Any) -> AdvisedLR:
        sent.append((options["signals"], options["rescue"], isinstance(options["model"], torch.nn.Module)))
        return AdvisedLR(optimizer, run, **options)

    def tell(run: mlrs.Run, step: int, loss: float) -> None:
        assert step == run.next_step
        told.append(step)
        validate(run, step, loss)

    monkeypatch.setattr(import_module("mlrs_bench.methods.searched"), "AdvisedLR", advised)
    monkeypatch.setattr(mlrs.Run, "validate", tell)
    watched = watch_long(name)
    assert sent == [(signals, rescue, True)]
    assert told == (sorted(validation_steps(HORIZON - watched.spent)) if validations else [])


def test_signals_change_no_training(watch_long: Watch) -> None:
    """Where nothing reads signals, they leave the training as it is, bit for bit."""
    every, losses = watch_long("search-signals"), watch_long("search-losses")
    assert (every.losses, every.lrs, every.cell.test_loss) == (
        losses.losses,
        losses.lrs,
        losses.cell.test_loss,
    )


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("start", SEARCH_STARTS)
def test_starts_are_told_to_the_search(watch_long: Watch, optimizer: str, start: float) -> None:
    """Its first trial begins at the LR that it was given, or where the daemon begins if it was given none."""
    family = {"sgd": SGD, "adamw": ADAM}[optimizer]
    watched = watch_long(ADVISED, optimizer=optimizer, start=start)
    assert watched.search is not None
    expected = RULES[optimizer].default_lr * (10**family.first if start == 1.0 else start)
    assert watched.search.trials[0].learning_rate == pytest.approx(expected)
    assert not watched.cell.diverged


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("name", [ADVISED, *SEARCHES])
def test_a_search_leaves_the_training_as_it_was(
    watch_long: Watch, methods: dict[str, Method], name: str, optimizer: str
) -> None:
    """The first batch has the loss that it has without a search: same weights, same dropout, same batch."""
    default = methods["constant"].base_lrs[optimizer]
    watched = watch_long(name, optimizer=optimizer)
    assert watched.changed == []
    assert watched.losses[0] == watch_long("constant", optimizer=optimizer, base_lr=default).losses[0]


def test_a_search_repeats(watch_long: Watch) -> None:
    """The same training finds the same rate and ends at the same loss, bit for bit."""
    one, two = watch_long(ADVISED, seed=101), watch_long(ADVISED, seed=101)
    assert found_by(one) == found_by(two)
    assert (one.losses, one.lrs, one.cell.test_loss) == (two.losses, two.lrs, two.cell.test_loss)


def test_no_run_is_left_behind(watch_long: Watch, advisor: mlrs.Advisor) -> None:
    """The daemon forgets the run when its training has ended."""
    watched = watch_long(ADVISED)
    with pytest.raises(mlrs.errors.RunNotFoundError):
        advisor.get_search(watched.training.run_id)


def test_a_search_that_was_not_made_is_no_result(watch_long: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training ends with the run's name and the reason, before its first step."""
    none = mlrs.SearchResult(learning_rate=None, why_not="the run is at step 3")
    monkeypatch.setattr(AdvisedLR, "search", lambda *_args, **_options: none)
    with pytest.raises(BenchError, match=r"watched-\d+: no search: the run is at step 3"):
        watch_long(ADVISED)


@pytest.mark.slow
def test_a_table_follows_the_network_in_question(tmp_path: Path) -> None:
    """The daemon of a table has the network in question as its default if it may choose after a search."""
    network = write_network(tmp_path / "tail.safetensors", spec=TailSpec(hidden_size=4))
    asked = Request(
        cache=tmp_path,
        task_file=TASKS,
        tasks=("long",),
        optimizers=("sgd",),
        methods=("search-losses", "search-schedule"),
        seeds=1,
        model=str(network),
    )
    assert Table(replace(asked, methods=("search-schedule", "search-linear")))._served() == []
    table = Table(asked)
    assert [model.method for model in table._served()] == ["mlr-snet"]
    table.run(workers=1, watch=lambda _progress, _cell: None)
    chosen, schedule = table.cells()
    assert not chosen.diverged
    assert len(chosen.lr_curve) == len(schedule.lr_curve) < HORIZON / EVERY
    ratios = [one[1] / other[1] for one, other in zip(chosen.lr_curve, schedule.lr_curve, strict=True)]
    assert ratios[0] == pytest.approx(1.0, rel=0.2)
    assert max(ratios) > 1.01 or min(ratios) < 0.99
