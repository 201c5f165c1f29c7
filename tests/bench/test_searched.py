"""Searches in the benchmark: what they cost a training, what they leave behind, and what follows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mlrs
from mlrs.torch import AdvisedLR
from mlrs_bench.bench import Request, Table
from mlrs_bench.errors import BenchError
from mlrs_bench.methods import SEARCH_STARTS, Method
from mlrs_bench.report.figures.methods import ADVISED, SEARCHES
from mlrs_bench.rules import RULES
from mlrs_core.search.race import ADAM, SGD
from tests.bench.conftest import TASKS, Watch
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


@pytest.mark.parametrize("name", [ADVISED, "search-linear", "search-cosine", "search-network"])
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
    [(ADVISED, 1.0, 0.03), ("search-linear", 0.75, 0.03), ("search-cosine", 0.857, 0.001)],
)
def test_what_follows_a_search(watch_long: Watch, name: str, quarter: float, end: float) -> None:
    """A schedule warms up to the rate that was found, and has its shape down to where the training ends."""
    watched = watch_long(name)
    rate = found_by(watched).learning_rate
    after = np.array(watched.lrs[WARMUP:]) / rate
    assert max(watched.lrs) == pytest.approx(rate)
    assert after[len(after) // 4] == pytest.approx(quarter, abs=0.01)
    assert 0.0 < after[-1] < end


def test_the_network_takes_the_rate_for_its_default(watch_long: Watch) -> None:
    """Its first learning rate is that of the network which is given as initial LR what the search found."""
    watched = watch_long("search-network")
    start = found_by(watched).learning_rate / RULES["sgd"].default_lr
    assert watched.lrs[0] == pytest.approx(watch_long("mlr-snet", start=start).lrs[0])
    assert watched.lrs[0] != pytest.approx(watch_long("mlr-snet").lrs[0])


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


def test_a_table_loads_the_network_that_follows(tmp_path: Path, network_file: Path) -> None:
    """The daemon of a table has the network in question if a search is followed by it, and else not."""
    method = "search-network"
    asked = Request(
        cache=tmp_path,
        task_file=TASKS,
        tasks=("long",),
        optimizers=("sgd",),
        methods=(method,),
        seeds=1,
        default_start=True,
        model=str(network_file),
    )
    assert Table(replace(asked, methods=("search", "search-linear")))._served() == []
    table = Table(asked)
    assert [model.method for model in table._served()] == ["mlr-snet"]
    table.run(workers=1, watch=lambda _progress, _cell: None)
    (cell,) = table.cells()
    assert (cell.method, cell.diverged) == (method, False)
    assert len(cell.lr_curve) < HORIZON / EVERY
