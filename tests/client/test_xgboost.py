"""The callback in XGBoost's own training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.types import AdvisedStep
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.daemon import Daemon
from tests.support.frameworks import framework
from tests.support.trainings.tumors import tumors

xgboost = framework("xgboost", "xgboost")
from mlrs.xgboost import AdvisedLR  # noqa: E402

PARAMETERS = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1, "eta": 0.2}
ROUNDS = 12


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """The examples and their labels."""
    return tumors()


def boost(data: Any, callback: Any, rounds: int = ROUNDS, **options: Any) -> Any:
    """Train; return the booster."""
    matrix = xgboost.DMatrix(*data)
    settings = {"evals": [(matrix, "train")], "verbose_eval": False, "callbacks": [callback]}
    return xgboost.train(PARAMETERS, matrix, rounds, **{**settings, **options})


def leaves(booster: Any) -> list[list[float]]:
    """Return the values of the leaves of each tree."""
    return [[float(value) for value in re.findall(r"leaf=([^\n]+)", tree)] for tree in booster.get_dump()]


def test_each_round_has_the_advice_for_the_loss_after_the_last(advisor: mlrs.Advisor, data: Any) -> None:
    """The first round keeps its rate; the next ones have the rates of the metric after the rounds before."""
    told: list[AdvisedStep] = []
    log: dict[str, Any] = {}
    callback = AdvisedLR("trees", advisor=advisor, horizon=ROUNDS, id="a", on_advice=told.append)
    booster = boost(data, callback, evals_result=log)
    losses = log["train"]["logloss"]
    assert [step.loss for step in told] == losses
    assert [step.learning_rate for step in told] == lr_sequence(losses)
    schedule = xgboost.callback.LearningRateScheduler(lr_sequence(losses))  # which sets the next round's, too
    assert leaves(booster) == leaves(boost(data, schedule))
    assert callback.run is not None
    info = advisor.get_run("a")
    assert (info.status, info.next_step) == ("finished", ROUNDS)
    assert (info.config.optimizer, info.config.max_lr, info.config.horizon) == ("sgd", 1.0, ROUNDS)


def test_options_of_the_user_count(advisor: mlrs.Advisor, data: Any) -> None:
    """Bounds, and a schedule, may be given; one callback makes a run a training."""
    callback = AdvisedLR("trees", advisor=advisor, max_lr=0.5, policy="cosine", horizon=ROUNDS)
    runs = []
    for _ in range(2):
        boost(data, callback, 2)
        assert callback.run is not None
        runs.append(callback.run)
    assert runs[0].id != runs[1].id
    assert runs[0].config.max_lr == 0.5
    assert runs[0].config.schedule is not None


def test_which_metric_is_the_loss(advisor: mlrs.Advisor, data: Any, daemon: FakeDaemon) -> None:
    """The training data is found by its name, or named; validation data is told as such."""
    matrix, other = xgboost.DMatrix(*data), xgboost.DMatrix(data[0][:50], data[1][:50])
    log: dict[str, Any] = {}
    options = {"evals": [(other, "valid"), (matrix, "training")], "evals_result": log}
    boost(data, AdvisedLR("trees", advisor=advisor, id="a", validation="valid"), 3, **options)
    assert daemon.runs["a"].losses == log["training"]["logloss"]
    told = [extras.validation for _, extras in sorted(daemon.runs["a"].extras.items())]
    assert told == list(enumerate(log["valid"]["logloss"]))
    named = AdvisedLR("trees", advisor=advisor, id="b", data="valid", metric="error")
    parameters = {**PARAMETERS, "eval_metric": ["auc", "error"]}
    xgboost.train(parameters, matrix, 3, verbose_eval=False, callbacks=[named], **options)
    assert daemon.runs["b"].losses == log["valid"]["error"]
    for wrong, message in (({"data": "x"}, "no 'x', only"), ({"metric": "x"}, "no 'x', only logloss")):
        with pytest.raises(InvalidArgumentError, match=message):
            boost(data, AdvisedLR("trees", advisor=advisor, **wrong), 3, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="higher values of auc are better"):
        xgboost.train(parameters, matrix, 3, callbacks=[AdvisedLR("trees", advisor=advisor)], **options)


def test_what_cannot_be_advised_is_refused(advisor: mlrs.Advisor, data: Any) -> None:
    """Without a metric, and in a cross-validation, the error says what to do."""
    with pytest.raises(UsageError, match="give evals="):
        boost(data, AdvisedLR("trees", advisor=advisor), evals=())
    with pytest.raises(UsageError, match="cv trains several boosters"):
        xgboost.cv(PARAMETERS, xgboost.DMatrix(*data), 3, callbacks=[AdvisedLR("t", advisor=advisor)])


def test_early_stopping_finishes_the_run(advisor: mlrs.Advisor, data: Any) -> None:
    """A training that is stopped early is complete; one that is short of its horizon is not."""
    callback = AdvisedLR("trees", advisor=advisor, horizon=500, id="stopped")
    noise = xgboost.DMatrix(data[0], 1 - data[1])
    matrix = xgboost.DMatrix(*data)
    boost(data, callback, 500, evals=[(matrix, "train"), (noise, "noise")], early_stopping_rounds=2)
    assert advisor.get_run("stopped").status == "finished"
    boost(data, AdvisedLR("trees", advisor=advisor, horizon=500, id="short"), 3)
    assert advisor.get_run("short").status == "active"


def test_the_interface_of_scikit_learn(advisor: mlrs.Advisor, data: Any, daemon: FakeDaemon) -> None:
    """`XGBClassifier` takes the callback, too."""
    callback = AdvisedLR("trees", advisor=advisor, id="a", horizon=5)
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, callbacks=[callback])
    model.fit(*data, eval_set=[data], verbose=False)
    assert daemon.runs["a"].losses == model.evals_result()["validation_0"]["logloss"]


@pytest.mark.parametrize("crash", [False, True])
def test_interrupted_equals_undisturbed(tmp_path: Path, data: Any, *, crash: bool) -> None:
    """From a saved booster, also after a `kill -9` of the daemon, rates and trees are equal to the bit."""
    told: list[AdvisedStep] = []
    options: Any = {"horizon": ROUNDS, "memory": False, "on_advice": told.append}
    path = tmp_path / "booster.ubj"
    with Daemon(tmp_path / "data") as daemon:
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            whole = boost(data, AdvisedLR("trees", advisor=advisor, **options))
            expected, told[:] = [(step.loss, step.learning_rate) for step in told], []
            boost(data, AdvisedLR("trees", advisor=advisor, id="cut", **options), 5).save_model(path)
            kept = told[:]
            boost(data, AdvisedLR("trees", advisor=advisor, id="cut", **options), 3, xgb_model=path)  # lost
        if crash:
            daemon.kill()
            daemon.start()
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            told[:] = []
            callback = AdvisedLR("trees", advisor=advisor, id="cut", **options)
            again = boost(data, callback, ROUNDS - 5, xgb_model=path)
            assert advisor.get_run("cut").status == "finished"
    assert [(step.loss, step.learning_rate) for step in kept + told] == expected
    assert again.get_dump() == whole.get_dump()
    matrix = xgboost.DMatrix(*data)
    assert np.array_equal(again.predict(matrix), whole.predict(matrix))


@pytest.mark.parametrize("parameters", [{"eta": 0.05}, {"booster": "dart", "learning_rate": 0.05}])
def test_without_a_daemon(tmp_path: Path, data: Any, parameters: Any) -> None:
    """If no daemon answers, the rounds are grown at the learning rate of the parameters."""
    matrix = xgboost.DMatrix(*data)
    with mlrs.connect(f"unix:{tmp_path / 'nobody'}", timeout_s=0.2, unsent_dir="") as advisor:
        callback = AdvisedLR("trees", advisor=advisor)
        booster = xgboost.train(
            {"nthread": 1, **parameters},
            matrix,
            3,
            evals=[(matrix, "train")],
            verbose_eval=False,
            callbacks=[callback],
        )
    plain = xgboost.train({"nthread": 1, **parameters}, matrix, 3)
    assert booster.get_dump() == plain.get_dump()
