"""The callback in LightGBM's own training."""

from __future__ import annotations

import json
import math
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

lightgbm = framework("lightgbm")
from mlrs.lightgbm import AdvisedLR  # noqa: E402

PARAMETERS = {"objective": "binary", "num_leaves": 4, "num_threads": 1, "verbose": -1, "learning_rate": 0.2}
ROUNDS = 12


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """The examples and their labels."""
    return tumors()


def boost(data: Any, callback: Any, rounds: int = ROUNDS, **options: Any) -> Any:
    """Train; return the booster."""
    settings = {"callbacks": [callback], **options}
    return lightgbm.train(PARAMETERS, lightgbm.Dataset(*data), rounds, **settings)


def trees(booster: Any) -> list[str]:
    """Return the trees, with every digit of their leaves."""
    return [json.dumps(tree) for tree in booster.dump_model()["tree_info"]]


def test_each_round_has_the_advice_for_the_loss_before_it(advisor: mlrs.Advisor, data: Any) -> None:
    """Every round, also the first, has the rate that is advised for the training metric before it."""
    told: list[AdvisedStep] = []
    log: dict[str, Any] = {}
    callback = AdvisedLR("trees", advisor=advisor, id="a", on_advice=told.append)
    train = lightgbm.Dataset(*data)
    record = lightgbm.record_evaluation(log)
    booster = lightgbm.train(PARAMETERS, train, ROUNDS, valid_sets=[train], callbacks=[callback, record])
    losses = log["training"]["binary_logloss"]
    assert told[0].loss == pytest.approx(math.log(2.0))
    assert [step.loss for step in told[1:]] == losses[:-1]
    rates = [step.learning_rate for step in told]
    assert rates == lr_sequence([step.loss for step in told])
    plain = boost(data, lightgbm.reset_parameter(learning_rate=rates))
    assert trees(booster) == trees(plain)
    info = advisor.get_run("a")
    assert (info.status, info.next_step) == ("finished", ROUNDS)
    assert (info.config.optimizer, info.config.max_lr, info.config.horizon) == ("sgd", 1.0, ROUNDS)


def test_options_of_the_user_count(advisor: mlrs.Advisor, data: Any) -> None:
    """Bounds, a schedule and a horizon may be given; one callback makes a run a training."""
    callback = AdvisedLR("trees", advisor=advisor, max_lr=0.5, policy="cosine", horizon=5)
    runs = []
    for _ in range(2):
        boost(data, callback, 2)
        assert callback.run is not None
        runs.append(callback.run)
    assert runs[0].id != runs[1].id
    assert (runs[0].config.max_lr, runs[0].config.horizon) == (0.5, 5)
    assert advisor.get_run(runs[0].id).status == "active"


def test_which_metric_is_the_loss(advisor: mlrs.Advisor, data: Any, daemon: FakeDaemon) -> None:
    """The first metric that falls is the loss, or the named one; validation data is told as such."""
    log: dict[str, Any] = {}
    train = lightgbm.Dataset(*data)
    other = lightgbm.Dataset(data[0][:50], data[1][:50], reference=train)
    options = {"valid_sets": [train, other], "valid_names": ["mine", "valid"]}
    parameters = {**PARAMETERS, "metric": ["auc", "binary_error", "binary_logloss"]}
    callback = AdvisedLR("trees", advisor=advisor, id="a", metric="binary_logloss", validation="valid")
    record = lightgbm.record_evaluation(log)
    lightgbm.train(parameters, train, 4, callbacks=[callback, record], **options)
    assert daemon.runs["a"].losses[1:] == log["mine"]["binary_logloss"][:-1]
    told = [extras.validation for _, extras in sorted(daemon.runs["a"].extras.items())]
    assert told[1:] == list(enumerate(log["valid"]["binary_logloss"][:-1], 1))
    lightgbm.train(
        parameters, train, 4, callbacks=[AdvisedLR("t", advisor=advisor, id="b"), record], **options
    )
    assert daemon.runs["b"].losses[1:] == log["mine"]["binary_error"][:-1]
    for wrong, message in (
        ({"metric": "auc"}, "higher values of auc are better"),
        ({"metric": "x"}, "no 'x' among those that LightGBM computes: auc, binary_error, binary_logloss"),
        ({"validation": "x"}, "no 'x' among the valid_sets: valid"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            lightgbm.train(
                parameters, train, 4, callbacks=[AdvisedLR("t", advisor=advisor, **wrong)], **options
            )  # type: ignore[arg-type]


def test_what_cannot_be_advised_is_refused(advisor: mlrs.Advisor, data: Any) -> None:
    """Without a loss, and in a cross-validation, the error says what to do."""
    train = lightgbm.Dataset(*data)
    with pytest.raises(UsageError, match="no metric where lower is better"):
        lightgbm.train({**PARAMETERS, "metric": "auc"}, train, 3, callbacks=[AdvisedLR("t", advisor=advisor)])
    with pytest.raises(UsageError, match="cv trains several boosters"):
        lightgbm.cv(PARAMETERS, lightgbm.Dataset(*data), 3, callbacks=[AdvisedLR("t", advisor=advisor)])


def test_early_stopping_leaves_the_end_to_the_user(advisor: mlrs.Advisor, data: Any) -> None:
    """LightGBM calls nothing at the end of a training, so that `finish` is the user's call."""
    callback = AdvisedLR("trees", advisor=advisor, id="stopped")
    assert callback.finish() is None
    train = lightgbm.Dataset(*data)
    noise = lightgbm.Dataset(data[0], 1 - data[1], reference=train)
    stop = lightgbm.early_stopping(2, verbose=False)
    lightgbm.train(PARAMETERS, train, 300, valid_sets=[noise], callbacks=[stop, callback])
    assert advisor.get_run("stopped").status == "active"
    info = callback.finish(metric=0.5)
    assert info is not None
    assert info.status == "finished"
    assert info.next_step < 20


def test_the_interface_of_scikit_learn(advisor: mlrs.Advisor, data: Any, daemon: FakeDaemon) -> None:
    """`LGBMClassifier` takes the callback, too."""
    model = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=4, n_jobs=1, verbose=-1)
    model.fit(*data, callbacks=[AdvisedLR("trees", advisor=advisor, id="a")])
    assert len(daemon.runs["a"].losses) == 5


@pytest.mark.parametrize("crash", [False, True])
def test_interrupted_equals_undisturbed(tmp_path: Path, data: Any, *, crash: bool) -> None:
    """From a saved booster, also after a `kill -9` of the daemon, rates and trees are equal to the bit."""
    told: list[AdvisedStep] = []
    options: Any = {"horizon": ROUNDS, "memory": False, "on_advice": told.append}
    path = str(tmp_path / "booster.txt")
    with Daemon(tmp_path / "data") as daemon:
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            whole = boost(data, AdvisedLR("trees", advisor=advisor, **options))
            expected, told[:] = [(step.loss, step.learning_rate) for step in told], []
            boost(data, AdvisedLR("trees", advisor=advisor, id="cut", **options), 5).save_model(path)
            with mlrs.connect(daemon.address, timeout_s=30.0) as other:
                kept = told[:5]
                boost(
                    data, AdvisedLR("trees", advisor=other, id="cut", **options), 3, init_model=path
                )  # lost
        if crash:
            daemon.kill()
            daemon.start()
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            told[:] = []
            callback = AdvisedLR("trees", advisor=advisor, id="cut", **options)
            again = boost(data, callback, ROUNDS - 5, init_model=path)
            assert advisor.get_run("cut").status == "finished"
    assert [(step.loss, step.learning_rate) for step in kept + told] == expected
    assert np.array_equal(again.predict(data[0]), whole.predict(data[0]))


@pytest.mark.parametrize("name", ["learning_rate", "eta", "shrinkage_rate"])
def test_without_a_daemon(tmp_path: Path, data: Any, name: str) -> None:
    """If no daemon answers, the rounds are grown at the learning rate of the parameters."""
    parameters = {"objective": "binary", "num_threads": 1, "verbose": -1, name: 0.05}
    with mlrs.connect(f"unix:{tmp_path / 'nobody'}", timeout_s=0.2, unsent_dir="") as advisor:
        callback = AdvisedLR("trees", advisor=advisor)
        booster = lightgbm.train(parameters, lightgbm.Dataset(*data), 3, callbacks=[callback])
    plain = lightgbm.train(parameters, lightgbm.Dataset(*data), 3)
    assert trees(booster) == trees(plain)
