"""What is read back from a file store of MLflow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs import writers
from mlrs.errors import UsageError
from tests.support.frameworks import framework

mlflow = framework("mlflow")

pytestmark = pytest.mark.filterwarnings("default")  # of the library, which warns of its file store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a store in files, which is MLflow's default while the test runs."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def train(advisor: mlrs.Advisor, on_advice: Any) -> list[float]:
    """Train a little; return the learning rates."""
    run = advisor.run("task", on_advice=on_advice)
    lrs = [run.next_lr(step, loss) for step, loss in enumerate([2.0, 1.0, math.nan, 0.5])]
    run.finish()
    return lrs


def read(store: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    """Return a metric of a run, with its steps."""
    return sorted((metric.step, metric.value) for metric in store.get_metric_history(run_id, name))


def test_the_active_run(advisor: mlrs.Advisor, store: Any) -> None:
    """Every step is in the run that was active when the writer was made, though another thread writes."""
    with mlflow.start_run() as active:
        lrs = train(advisor, writers.mlflow())
    assert read(store, active.info.run_id, "mlrs/learning_rate") == list(enumerate(lrs))
    losses = read(store, active.info.run_id, "mlrs/loss")
    assert repr(losses) == repr([(0, 2.0), (1, 1.0), (2, math.nan), (3, 0.5)])
    assert len(store.search_runs(["0"])) == 1


@pytest.mark.parametrize("as_id", [False, True])
def test_a_run_of_the_user(advisor: mlrs.Advisor, store: Any, *, as_id: bool) -> None:
    """A run, or its id, may be given, with the client of its store."""
    made = store.create_run("0")
    lrs = train(advisor, writers.mlflow(made.info.run_id if as_id else made, client=store))
    assert read(store, made.info.run_id, "mlrs/learning_rate") == list(enumerate(lrs))


def test_without_a_run(store: Any) -> None:
    """The error says what to call first, and no run is made."""
    with pytest.raises(UsageError, match="start_run"):
        writers.mlflow()
    assert store.search_runs(["0"]) == []
