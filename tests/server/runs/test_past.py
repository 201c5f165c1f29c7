"""What is remembered of how a run ended."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from mlrs_core.config import Measure, Optimizer, RunConfig
from mlrs_core.memory import Ending, Explore
from mlrs_server.domain.ledger import DIVERGED_AFTER, RunStatus
from mlrs_server.live import replay
from mlrs_server.runs.past import Outcome
from tests.server.runs.memories import CONFIG, HORIZON, begin, end, known, newest, observe, train
from tests.server.runs.searches import searched
from tests.server.support import LOSSES, harness

NAN, INF = math.nan, math.inf
LAST = HORIZON // 20
"""The number of the last steps whose mean training loss counts."""


async def test_a_run_is_remembered_as_it_was_advised(tmp_path: Path, model_file: Path) -> None:
    """A run that reached its horizon is remembered with its model, its optimizer and its last losses."""
    async with harness(tmp_path / "d", model_file) as here:
        config = replace(CONFIG, optimizer=Optimizer.MOMENTUM, momentum=0.8)
        await train(here, "a", config)
        (run,) = (await known(here)).runs
        view = await here.records.get("a")
        assert (run.run_id, run.ending) == ("a", Ending.REACHED)
        assert run.policy.startswith("small@")
        assert (run.learning_rate, run.lr_offset, run.searched) == (None, 0.0, False)
        assert (run.optimizer, run.momentum) == (Optimizer.MOMENTUM, 0.8)
        assert (run.horizon, run.batch_size) == (HORIZON, 8)
        assert (run.metric, run.validation_loss) == (None, None)
        assert run.training_loss == pytest.approx(np.mean(LOSSES[HORIZON - LAST : HORIZON]))
        assert run.recalled == view.config.recalled
        assert run.time >= view.create_time


@pytest.mark.parametrize(
    ("validations", "told", "measure", "value"),
    [
        ({}, {}, Measure.TRAINING_LOSS, None),
        ({35: 3.0}, {}, Measure.VALIDATION_LOSS, 3.0),
        ({30: 2.0, 35: 3.0, 37: NAN, 38: INF}, {}, Measure.VALIDATION_LOSS, 3.0),
        ({29: 3.0}, {}, Measure.TRAINING_LOSS, None),
        ({35: 3.0}, {"validation_loss": 4.0}, Measure.VALIDATION_LOSS, 4.0),
        ({35: 3.0}, {"validation_loss": NAN}, Measure.VALIDATION_LOSS, 3.0),
        ({}, {"validation_loss": INF}, Measure.TRAINING_LOSS, None),
        ({35: 3.0}, {"metric": 0.5, "higher_is_better": True}, Measure.METRIC, 0.5),
        ({}, {"metric": 0.0}, Measure.METRIC, 0.0),
    ],
)
async def test_what_a_run_is_measured_by(
    tmp_path: Path,
    model_file: Path,
    validations: dict[int, float],
    told: dict[str, Any],
    measure: Measure,
    value: float | None,
) -> None:
    """The caller's metric counts, else the newest validation loss near the end, else the training loss."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", validations=validations, **told)
        run = await newest(here)
        assert run.best_measure == measure
        assert run.measured(measure) == (run.training_loss if value is None else value)
        assert run.higher_is_better == told.get("higher_is_better", False)


@pytest.mark.parametrize(
    ("losses", "ending", "training_loss"),
    [
        (LOSSES[:39], Ending.STOPPED, "last"),
        (LOSSES[:1], Ending.STOPPED, "last"),
        ([], Ending.STOPPED, None),
        (LOSSES[:41], Ending.REACHED, "last"),
        ([*LOSSES[:39], NAN], Ending.DIVERGED, "last"),
        ([*LOSSES[:19], NAN], Ending.DIVERGED, None),
        ([*LOSSES[:20], *[INF] * DIVERGED_AFTER], Ending.DIVERGED, None),
        ([NAN] * HORIZON, Ending.DIVERGED, None),
        ([*LOSSES[:38], NAN, 2.0], Ending.REACHED, 2.0),
        ([*LOSSES[:38], -1.0, 0.0], Ending.REACHED, -0.5),
        ([*LOSSES[:38], 1.7e308, 1.7e308], Ending.REACHED, 1.7e308),
    ],
)
async def test_how_a_run_ended(
    tmp_path: Path,
    model_file: Path,
    losses: Sequence[float],
    ending: Ending,
    training_loss: float | str | None,
) -> None:
    """A run reached its horizon, was stopped before, or diverged; its training loss is of finite losses."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", losses=losses)
        run = await newest(here)
        assert run.ending == ending
        if training_loss == "last":
            count = max(math.ceil(len(losses) / 20), 1)
            finite = [loss for loss in losses[-count:] if math.isfinite(loss)]
            training_loss = float(np.mean(finite)) if finite else None
        assert run.training_loss == (training_loss if training_loss is None else pytest.approx(training_loss))
        assert (run.best_measure is Measure.UNSPECIFIED) == (ending is not Ending.REACHED)


async def test_a_run_that_recovered_before_its_end_has_not_diverged(tmp_path: Path, model_file: Path) -> None:
    """Many bad losses in a row do not count where good ones came after them."""
    async with harness(tmp_path / "d", model_file) as here:
        bad = [*LOSSES[:20], *[NAN] * (DIVERGED_AFTER + 1), *LOSSES[31:HORIZON]]
        await train(here, "a", losses=bad)
        assert (await newest(here)).ending == Ending.REACHED


async def test_charged_steps_of_a_search_are_part_of_the_horizon(tmp_path: Path, model_file: Path) -> None:
    """A run whose trials are charged reaches its horizon earlier; what the search found is its rate."""
    async with harness(tmp_path / "d", model_file) as here:
        config = replace(CONFIG, horizon=400)
        await begin(here, "a", config)
        view = await searched(here, charge_steps=True)
        opened = await here.open("a")
        found = opened.view.config.found
        assert found is not None
        left = 400 - found.steps
        assert 0 < left < 400
        await observe(here, opened.handle, LOSSES[:left])
        await end(here, "a")
        run = await newest(here)
        assert (run.ending, run.horizon, run.searched, run.policy) == (Ending.REACHED, 400, True, "wsd")
        assert run.learning_rate == found.learning_rate
        assert view.attempt == 1


async def test_what_was_not_stored_yet_counts(tmp_path: Path, model_file: Path) -> None:
    """Finishing stores the last answers first, and a restarted daemon remembers the same."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", metric=0.5)
        before = await known(here)
    async with harness(tmp_path / "d", model_file) as here:
        assert (await known(here)).runs == before.runs


async def test_a_run_that_is_finished_from_the_store(tmp_path: Path, model_file: Path) -> None:
    """A run that is not in memory as it is finished is remembered as one that is."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "a")
        await observe(here, opened.handle, LOSSES[:HORIZON])
    async with harness(tmp_path / "d", model_file) as here:
        await end(here, "a", metric=0.5)
        run = await newest(here)
        assert (run.ending, run.metric) == (Ending.REACHED, 0.5)
        assert run.training_loss == pytest.approx(np.mean(LOSSES[HORIZON - LAST : HORIZON]))


@pytest.mark.parametrize("page", [1, 3, 7])
async def test_a_long_record_is_read_in_pages(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Where the end of a record is more than one page, the same is measured."""
    monkeypatch.setattr("mlrs_server.runs.past.PAGE", page)
    assert page < replay.PAGE
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", validations={31: 3.0, 33: 2.5})
        run = await newest(here)
        assert run.training_loss == pytest.approx(np.mean(LOSSES[HORIZON - LAST : HORIZON]))
        assert run.validation_loss == 2.5


async def test_a_damaged_record_does_not_keep_a_run_from_its_end(tmp_path: Path, model_file: Path) -> None:
    """A run whose record cannot be read is finished with what its caller says, and a warning."""
    async with harness(tmp_path / "d", model_file) as here:
        for run_id in ("a", "b"):
            await observe(here, (await begin(here, run_id)).handle, LOSSES[:HORIZON])
        await here.live.journal.flush()
        with closing(sqlite3.connect(tmp_path / "d" / "mlrs.sqlite3")) as file:
            file.execute("UPDATE observations SET record = x'00' WHERE run_key = 1")
            file.commit()
        with capture_logs() as logs:
            await end(here, "a", metric=0.5)
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["run_unreadable"]
        await end(here, "b")
        assert (await here.records.get("a")).snapshot.status == RunStatus.FINISHED
        other, damaged = (await known(here)).runs
        assert (damaged.ending, damaged.metric, damaged.training_loss) == (Ending.REACHED, 0.5, None)
        assert other.training_loss is not None


# ------------------------------------------------------------------------------ finishing again


async def test_a_finished_run_takes_a_late_metric(tmp_path: Path, model_file: Path) -> None:
    """A metric that comes after the end is added, and replaces another; what else is known stays."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", validations={35: 3.0})
        before = await newest(here)
        await end(here, "a")
        assert await newest(here) == before
        for metric in (0.5, 0.25):
            await end(here, "a", metric=metric, higher_is_better=True)
            assert await newest(here) == replace(before, metric=metric, higher_is_better=True)


async def test_late_metrics_of_a_batch(tmp_path: Path, model_file: Path) -> None:
    """Of runs that are finished together, those that were finished before take their metrics, too."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a")
        await begin(here, "b")
        await train(here, "forgotten", explore=None)
        outcomes = [Outcome(metric=value) for value in (0.1, 0.2, 0.3)]
        await here.ending.finish_many(["a", "b", "forgotten"], [], outcomes)
        assert {run.run_id: run.metric for run in (await known(here)).runs} == {"a": 0.1, "b": 0.2}


async def test_a_late_metric_of_a_run_that_was_forgotten(tmp_path: Path, model_file: Path) -> None:
    """A metric of a run that is remembered no more, or never was, changes nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a")
        await train(here, "b", explore=None)
        assert await here.memory.forget("", "task") == 1
        for run_id in ("a", "b"):
            await end(here, run_id, metric=0.5)
        assert await here.memory.tasks("", after="", limit=9) == []


async def test_a_run_that_goes_on_after_its_end(tmp_path: Path, model_file: Path) -> None:
    """A finished run that is rewound and finished again is remembered once, as it ended last."""
    async with harness(tmp_path / "d", model_file) as here:
        await train(here, "a", metric=0.5)
        opened = await here.open("a", resume_from=30)
        await observe(here, opened.handle, [9.0] * 10, start=30)
        await end(here, "a")
        (run,) = (await known(here)).runs
        assert (run.ending, run.metric, run.training_loss) == (Ending.REACHED, None, 9.0)


@pytest.mark.parametrize(
    "config", [RunConfig(), RunConfig(horizon=HORIZON, initial_lr=0.1)], ids=["no horizon", "a given rate"]
)
async def test_a_run_that_takes_no_part_leaves_nothing(
    tmp_path: Path, model_file: Path, config: RunConfig
) -> None:
    """A run that takes no part in the memory is finished without being read, whatever is said of it."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "a", config, explore=Explore.FULL)
        await observe(here, opened.handle, LOSSES[:10])
        await here.live.journal.flush()
        here.store.calls.clear()
        await end(here, "a", metric=0.5)
        assert "read" not in here.store.calls
        assert await here.memory.tasks("", after="", limit=9) == []
