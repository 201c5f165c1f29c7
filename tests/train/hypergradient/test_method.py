"""The paper's algorithm, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from mlrs_core.networks.paper.reference import net_with, weights_of
from mlrs_core.networks.scale import shu_gamma
from mlrs_train import tasks
from mlrs_train.errors import DivergedError
from mlrs_train.hypergradient.gradient import learning_rate, value_and_grad
from mlrs_train.hypergradient.method import Hypergradient
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.tasks import load_tasks
from tests.train.toys import quadratic


def begin(names: Sequence[str] = ("blobs",), **fields: object) -> Hypergradient:
    """Return a small training."""
    settings = HypergradientSettings(**{"tasks": names, "epochs": 4, "hidden_size": 6, "t_val": 3, **fields})
    return Hypergradient(settings, load_tasks(settings.tasks))


def run(training: Hypergradient) -> list[float]:
    """Run a training to its end; return the learning rates that it logged."""
    rates = []
    while training.steps_done < training.steps_total:
        if record := training.advance():
            rates.append(record.values["learning_rate"])
    return [rate for rate in rates if rate is not None]


def test_lstm_advances_once_on_a_meta_step() -> None:
    """A meta step moves the LSTM by one step under the new phi, from the state before the step."""
    training = begin(t_val=3)
    for _ in range(2):
        training.advance()
    learner = training.learners[0]
    before, params, phi = learner.lstm, learner.params, weights_of(training.net)
    # The batch of the third step: the order of this epoch is drawn already.
    batch = learner.task.train.take(learner.order[2 * 8 : 3 * 8])
    training.advance()
    assert training.meta_updates == 1
    assert any((phi[name] != now).any() for name, now in weights_of(training.net).items())
    loss, _ = value_and_grad(lambda params: learner.task.loss(params, batch), params)
    assert learner.gamma is not None
    _, expected = learning_rate(training.net, before, loss, learner.gamma)
    for ours, theirs in zip(learner.lstm[0], expected[0], strict=True):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad


def test_meta_steps_change_nothing_but_phi() -> None:
    """With meta updates of size zero, a training gives the same bits as one without any."""
    still = {"meta_lr": 1e-40, "meta_weight_decay": 0.0, "log_every": 1}
    often, never = begin(t_val=1, **still), begin(t_val=1000, **still)
    assert run(often) == run(never)
    assert (often.meta_updates, never.meta_updates) == (20, 0)
    assert torch.equal(often.learners[0].lstm[0][1], never.learners[0].lstm[0][1])


def test_gamma_is_the_authors_rule_on_the_first_loss() -> None:
    """Gamma comes from the loss of the first batch, as for a run that is advised."""
    training = begin()
    learner = training.learners[0]
    training.advance()
    assert learner.gamma == pytest.approx(shu_gamma(learner.loss_sum, math.log(3)))


def test_first_learning_rate_is_about_half_of_gamma() -> None:
    """A fresh network starts in the middle of its range."""
    training = begin(log_every=1)
    record = training.advance()
    gamma = training.learners[0].gamma
    assert record is not None
    assert gamma is not None
    assert 0.3 < (record.values["learning_rate"] or 0) / gamma < 0.7


def test_snapshots_are_of_the_first_middle_and_last_epoch() -> None:
    """Snapshots hold phi as it was at the end of these epochs, for all tasks."""
    training = begin(("blobs", "shallow"), epochs=5, t_val=2)
    after = {}
    while training.steps_done < training.steps_total:
        training.advance()
        epochs = {learner.epochs_done for learner in training.learners}
        if len(epochs) == 1 and (epoch := epochs.pop()).is_integer():
            after[int(epoch)] = weights_of(training.net)
    assert training.settings.snapshot_epochs() == [1, 2, 5]
    assert list(after) == [1, 2, 3, 4, 5]
    for epoch, snapshot in zip((1, 2, 5), training.snapshots, strict=True):
        assert all((snapshot[name] == array).all() for name, array in after[epoch].items())


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (200, [1, 100, 200])])
def test_short_trainings_have_fewer_snapshots(epochs: int, expected: list[int]) -> None:
    """An epoch that is first, middle and last at once gives one snapshot."""
    assert HypergradientSettings(epochs=epochs).snapshot_epochs() == expected


def test_tasks_go_through_their_epochs_together() -> None:
    """The learner that is behind goes next, so epochs of unequal length end together."""
    training = begin(("blobs", "shallow"), epochs=2)
    order = []
    while training.steps_done < 25:
        before = [learner.step for learner in training.learners]
        training.advance()
        order.append(next(i for i, learner in enumerate(training.learners) if learner.step > before[i]))
    assert order == [0, 1, 1, 1, 1] * 5


def test_too_small_a_rate_is_raised() -> None:
    """On a shallow quadratic, whose best rate is far above gamma, training raises the rate."""
    settings = {"epochs": 20, "meta_lr": 1e-2, "log_every": 1}
    trained = run(begin(("shallow",), t_val=2, **settings))
    untrained = run(begin(("shallow",), t_val=10**6, **settings))
    assert trained[-1] > 1.2 * trained[0]
    assert trained[-1] > 1.2 * untrained[-1]


def test_held_out_loss_falls() -> None:
    """Training on a toy task brings the held-out loss down."""
    training = begin(epochs=20, log_every=1)
    losses = []
    while training.steps_done < training.steps_total:
        if (record := training.advance()) and (loss := record.values["validation_loss"]) is not None:
            losses.append(loss)
    assert losses[-1] < 0.7 * losses[0]


def test_diverging_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base learner that diverges ends the training with its task's name and step."""
    monkeypatch.setitem(tasks.TASKS, "steep", quadratic(1e3))
    with pytest.raises(DivergedError, match=r"steep: .* loss is .* at step \d+"):
        run(begin(("steep",), t_val=10**6, epochs=1000))


def test_model_is_what_was_trained() -> None:
    """The model's last snapshot is phi, and its provenance says how it was made."""
    training = begin()
    run(training)
    model = training.model({"seed": 0})
    net = net_with(training.settings.architecture(), model.snapshots[-1])
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), training.net.parameters(), strict=True))
    assert model.provenance["snapshot_epochs"] == [1, 2, 4]
    assert model.provenance["meta_updates"] == training.meta_updates == 6
    assert model.provenance["seed"] == 0
