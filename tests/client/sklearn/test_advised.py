"""`partial_fit` at advised learning rates."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.daemon import Daemon
from tests.support.frameworks import framework

framework("sklearn", "scikit-learn")
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

from mlrs.sklearn import AdvisedLR  # noqa: E402
from mlrs.sklearn.losses import batch_loss  # noqa: E402


def classifier(**options: Any) -> Any:
    """Return a new model."""
    settings = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.05, "random_state": 0}
    return SGDClassifier(**{**settings, **options})


def bits(values: Any) -> list[bytes]:
    """Return numbers to the bit."""
    return [struct.pack("<d", value) for value in np.ravel(values)]


def test_each_update_has_the_advice_for_its_own_loss(advisor: mlrs.Advisor, batches: list[Any]) -> None:
    """Rates are those of the losses before the updates, and the weights follow from them."""
    told: list[mlrs.types.AdvisedStep] = []
    model = classifier()
    advised = AdvisedLR(model, "digits", advisor=advisor, horizon=20, on_advice=told.append)
    plain, losses = classifier(), []
    for x, y in batches:
        losses.append(batch_loss(plain, x, y, range(10), None))
        plain.set_params(eta0=lr_sequence(losses)[-1]).partial_fit(x, y, classes=range(10))
        assert advised.partial_fit(x, y, classes=range(10)) is advised
    info = advised.finish(metric=model.score(*batches[0]), higher_is_better=True)
    assert info is not None
    assert info.status == "finished"
    assert [step.loss for step in told] == losses
    assert [step.learning_rate for step in told] == lr_sequence(losses)
    assert bits(model.coef_) == bits(plain.coef_)
    assert model.eta0 == told[-1].learning_rate


def test_the_run_knows_the_optimizer_and_the_batch(advisor: mlrs.Advisor, batches: list[Any]) -> None:
    """The config has SGD and the number of samples, unless the user says otherwise."""
    advised = AdvisedLR(classifier(), "digits", advisor=advisor)
    assert advised.run is None
    advised.partial_fit(*batches[0], classes=range(10))
    assert advised.run is not None
    config = advised.run.config
    assert (config.optimizer, config.momentum, config.batch_size) == ("sgd", 0.0, 16)
    other = AdvisedLR(classifier(), "digits", advisor=advisor, batch_size=7, optimizer="other")
    other.partial_fit(*batches[0], classes=range(10))
    assert other.run is not None
    assert (other.run.config.optimizer, other.run.config.batch_size) == ("other", 7)


def test_a_regressor_and_a_loss_of_the_user(advisor: mlrs.Advisor) -> None:
    """A regressor needs no classes, and a function given as `loss` is what is observed."""
    x, y = np.ones((4, 2)), np.arange(4.0)
    told: list[mlrs.types.AdvisedStep] = []
    line = SGDRegressor(learning_rate="constant", eta0=0.1, random_state=0)
    advised = AdvisedLR(line, "line", advisor=advisor, on_advice=told.append)
    advised.partial_fit(x, y, sample_weight=[1.0, 0.0, 0.0, 0.0])
    advised.finish()
    assert [step.loss for step in told] == [0.0]
    mine = AdvisedLR(line, "line", advisor=advisor, loss=lambda *_: 7.0, on_advice=told.append)
    mine.partial_fit(x, y)
    mine.finish()
    assert told[-1].loss == 7.0


def test_a_learning_rate_of_zero_moves_nothing(advisor: mlrs.Advisor, batches: list[Any]) -> None:
    """After a first loss that is not finite the learning rate is 0, which scikit-learn refuses as `eta0`."""
    model = classifier()
    advised = AdvisedLR(model, "digits", advisor=advisor, loss=lambda *_: np.nan)
    advised.partial_fit(*batches[0], classes=range(10))
    assert abs(model.coef_).max() < 1e-300


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SGDClassifier(loss="log_loss"), "learning_rate is 'optimal'"),
        (SGDRegressor(), "learning_rate is 'invscaling'"),
        (Perceptron(), "is Perceptron"),
        (MLPClassifier(), "is MLPClassifier"),
        (3, "is int"),
    ],
)
def test_other_estimators_are_refused(estimator: Any, message: str) -> None:
    """An estimator that would not train with the advice is refused at once, with the way out."""
    with pytest.raises(InvalidArgumentError, match=message) as raised:
        AdvisedLR(estimator, "task")
    assert raised.value.field == "estimator"


def test_a_search_puts_everything_back(advisor: mlrs.Advisor, batches: list[Any]) -> None:
    """The trials of a search train the model, and leave nothing of that."""
    model = classifier(random_state=None)
    advised = AdvisedLR(model, "digits", advisor=advisor, horizon=400)
    np.random.seed(3)  # noqa: NPY002 # what scikit-learn shuffles with
    result = advised.search(batches, classes=range(10))
    assert [trial.steps for trial in result.trials] == [5, 5, 5]
    assert result.learning_rate is not None
    assert not hasattr(model, "coef_")
    assert model.eta0 == 0.05
    assert np.random.random() == np.random.RandomState(3).random()  # noqa: NPY002
    with pytest.raises(InvalidArgumentError, match="there are none"):
        advised.search([])


def train(advised: AdvisedLR, batches: list[Any]) -> list[float]:
    """Train on batches; return the learning rates."""
    rates = []
    for x, y in batches:
        advised.partial_fit(x, y, classes=range(10))
        rates.append(advised.estimator.eta0)
    return rates


@pytest.mark.parametrize("crash", [False, True])
def test_interrupted_equals_undisturbed(
    tmp_path: Path, batches: list[Any], monkeypatch: pytest.MonkeyPatch, *, crash: bool
) -> None:
    """From a pickle, also after a `kill -9` of the daemon, weights and rates are equal to the bit."""
    options: Any = {"horizon": 20, "memory": False}
    with Daemon(tmp_path / "data") as daemon:
        monkeypatch.setenv("MLRS_TARGET", daemon.address)
        with mlrs.connect(timeout_s=30.0) as advisor:
            undisturbed = AdvisedLR(classifier(), "task", advisor=advisor, **options)
            rates = train(undisturbed, batches)
            interrupted = AdvisedLR(classifier(), "task", advisor=advisor, **options)
            first = train(interrupted, batches[:8])
            saved = pickle.dumps(interrupted)
            train(interrupted, batches[8:13])
        if crash:
            daemon.kill()
            daemon.start()
        own, run = mlrs.connect(timeout_s=30.0), mlrs.run
        monkeypatch.setattr(
            mlrs, "run", lambda task, advisor, **more: run(task, advisor=advisor or own, **more)
        )
        loaded = pickle.loads(saved)  # noqa: S301 # of this test
        assert bits(first + train(loaded, batches[8:])) == bits(rates)
        assert loaded.run.id == interrupted.run.id
        assert bits(loaded.estimator.coef_) == bits(undisturbed.estimator.coef_)
        assert loaded.finish().next_step == 20


def test_a_checkpoint_of_ones_own(advisor: mlrs.Advisor, daemon: FakeDaemon, batches: list[Any]) -> None:
    """`state_dict` holds the position of the run, with which another object goes on."""
    advised = AdvisedLR(classifier(), "task", advisor=advisor)
    assert advised.state_dict() == {}
    train(advised, batches[:3])
    saved = advised.state_dict(), pickle.dumps(advised.estimator)
    rates = train(advised, batches[3:6])
    again = AdvisedLR(pickle.loads(saved[1]), "task", advisor=advisor)  # noqa: S301
    again.load_state_dict(saved[0])
    assert again.state_dict() == saved[0]
    assert train(again, batches[3:6]) == rates
    assert len(daemon.runs) == 1
    with pytest.raises(InvalidArgumentError, match="state lacks"):
        again.load_state_dict({"step": 3})
