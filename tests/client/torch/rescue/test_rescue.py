"""Rescue in a PyTorch loop: copies are put back in any order of its calls, and the daemon is told."""

from __future__ import annotations

import math
import threading

import pytest
import torch

import mlrs
from mlrs.torch import AdvisedLR
from mlrs.torch.loss import Loss
from tests.client.fake_daemon import FakeDaemon
from tests.client.torch.rescue.trainings import HORIZON, Training, restored
from tests.support.runs import open_run


@pytest.mark.parametrize("kind", ["momentum", "adamw"])
def test_a_training_is_put_back_after_the_update(
    advisor: mlrs.Advisor, daemon: FakeDaemon, kind: str
) -> None:
    """After a step whose advice asks for it, the training is as at its last copy, and says so."""
    training = Training(kind)
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    twin = Training(kind)
    twin.loss()  # the copy is made after the first forward pass, which moves the buffers
    training.train(scheduler, 3, bad=[2])
    assert training.state() == twin.state()
    training.train(scheduler, 20)
    assert restored(daemon) == [3]
    assert daemon.runs["a"].config.rescue
    assert training.is_finite()


def test_a_later_copy_is_put_back(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """What is put back is the copy of step 20, made before its update, not the first."""
    training, states = Training(), list[str]()
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    for step in range(31):
        loss = training.loss(is_bad=step == 30)
        if step == 20:
            states.append(training.state())
        scheduler.observe(loss)
        training.optimizer.step()
        scheduler.step()
    assert states == [training.state()]
    training.train(scheduler, 1)
    assert restored(daemon) == [31]


def take(training: Training, scheduler: AdvisedLR, order: str, *, is_bad: bool, is_skipped: bool) -> None:
    """Take a step with the calls of a loop in some order; the loss may be bad, and the update skipped."""
    loss = training.loss(is_bad=is_bad)
    for call in order.split():
        if call == "observe":
            scheduler.observe(loss)
        elif call == "update":
            if not is_skipped:
                training.optimizer.step()
        else:
            scheduler.step(None if call == "end" else loss)


ORDERS = ("observe update end", "observe end update", "update tell", "tell update")
"""In which the loss is observed, the weights updated and the step ended, or all of that told in one call."""


@pytest.mark.parametrize("order", ORDERS)
def test_in_any_order_the_bad_update_alone_is_undone(
    advisor: mlrs.Advisor, daemon: FakeDaemon, order: str
) -> None:
    """Whether the update comes before or after the end of its step, it is undone, and the next is kept."""
    training, states = Training(), list[str]()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    for step in range(6):
        take(training, scheduler, order, is_bad=step == 3, is_skipped=False)
        assert training.is_finite()
        states.append(training.state())
    assert restored(daemon) == [4]
    first = Training()
    first.loss()
    if order == "update tell":  # the copy was made after the first update
        assert states[3] == states[0]
    else:
        assert states[3] == first.state()
    assert len(set(states[3:])) == 3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("skipped", [0, 3])
def test_an_update_that_a_scaler_skipped(
    advisor: mlrs.Advisor, daemon: FakeDaemon, order: str, skipped: int
) -> None:
    """Where the update of the bad step was skipped, the copy is put back once, and the next one is kept.

    One that was skipped earlier changes nothing. But at the very beginning of a loop that updates before it
    tells its loss, it hides the order, and then a good update may be undone.
    """
    training, states = Training(), list[str]()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    for step in range(6):
        take(training, scheduler, order, is_bad=step == 3, is_skipped=step == skipped)
        states.append(training.state())
    assert restored(daemon) == [4]
    assert training.is_finite()
    if (order, skipped) != ("update tell", 0):
        assert len(set(states[3:])) == 3


def test_a_lagged_loop_is_put_back_a_step_later(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A loop that never waits learns of it in the next step; its loss was bad, too, and is answered alike."""
    training = Training()
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, lagged=True, model=training.model)
    for step in range(12):
        scheduler.observe(training.loss(is_bad=step == 3))
        while len(daemon.runs["a"].losses) <= step:
            pass
        run.observe(step, daemon.runs["a"].losses[step]).lr()
        training.optimizer.step()
        scheduler.step()
    assert restored(daemon) == [5, 6]
    assert training.is_finite()


def test_a_lagged_loop_copies_no_weights_that_have_blown_up(
    advisor: mlrs.Advisor, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step whose copy is due has bad weights, whose loss is still read: the copy before it stays."""
    ended, value = threading.Event(), Loss.value

    def read(loss: Loss) -> float:
        ended.wait(0.1 if len(daemon.runs["a"].losses) == 20 else 0.0)
        return value(loss)

    monkeypatch.setattr("mlrs.torch.loss._is_on_host", lambda _: False)
    monkeypatch.setattr(Loss, "value", read)
    training = Training()
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, lagged=True, model=training.model)
    for step in range(26):
        if step == 20:
            with torch.no_grad():
                next(iter(training.model.parameters())).fill_(math.nan)
        scheduler.observe(training.loss())
        training.optimizer.step()
        scheduler.step()
        ended.set() if step == 20 else ended.clear()
        while len(daemon.runs["a"].losses) <= step:
            pass
        run.observe(step, daemon.runs["a"].losses[step]).lr()
    assert restored(daemon)
    assert training.is_finite()


def test_checkpoints_hold_no_copy(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A state is small, and once it is loaded nothing is put back until the next copy is made."""
    training = Training()
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    training.train(scheduler, 5)
    state = scheduler.state_dict()
    assert set(state) == {"run_id", "step", "last_lr", "base_lrs", "restored"}
    for same in (True, False):
        continued = scheduler if same else AdvisedLR(training.optimizer, run, model=training.model)
        continued.load_state_dict(state)
        before = training.state()
        continued.observe(training.loss(is_bad=True))
        continued.step()
        training.loss()
        assert restored(daemon) == []
        assert training.state() != before  # of the buffers, at least: nothing was put back
        continued.load_state_dict(state)
        training.train(continued, 21)
        training.train(continued, 2, bad=[0])
        assert restored(daemon) == [27]
        daemon.runs["a"].extras.clear()
        continued.load_state_dict(state)


@pytest.mark.parametrize("same", [True, False])
def test_a_checkpoint_right_after_a_restore_says_so(
    advisor: mlrs.Advisor, daemon: FakeDaemon, *, same: bool
) -> None:
    """The first observation after it was loaded says that a copy was put back, and no other does."""
    training = Training()
    run = open_run(advisor, "a", horizon=HORIZON)
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    training.train(scheduler, 3, bad=[2])
    state = scheduler.state_dict()
    training.train(scheduler, 2)
    later = scheduler.state_dict()
    for saved, expected in ((later, [3]), (state, [3]), ({**state, "restored": False}, [])):
        continued = scheduler if same else AdvisedLR(training.optimizer, run, model=training.model)
        continued.load_state_dict(saved)
        training.train(continued, 2)
        assert restored(daemon) == expected
        scheduler = continued


def test_a_checkpoint_of_before_restores_were_in_it_is_loaded(
    advisor: mlrs.Advisor, daemon: FakeDaemon
) -> None:
    """A state without the word on a restore is one of a run that restored nothing."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON))
    training.train(scheduler, 2)
    state = scheduler.state_dict()
    del state["restored"]
    scheduler.load_state_dict(state)
    training.train(scheduler, 1)
    assert restored(daemon) == []


def test_rescue_can_be_left_out(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """With `rescue=False` here or at the run, nothing is asked for and nothing put back."""
    for name, options, arguments in (("a", {}, {"rescue": False}), ("b", {"rescue": False}, {})):
        training = Training()
        run = advisor.run("t", id=name, horizon=HORIZON, **options)
        scheduler = AdvisedLR(training.optimizer, run, model=training.model, **arguments)
        training.train(scheduler, 4, bad=[2])
        assert restored(daemon, name) == []
        assert not daemon.runs[name].config.rescue
        assert not training.is_finite()


def test_a_lagged_loop_without_rescue_asks_for_no_restores(
    advisor: mlrs.Advisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that never waits asks for the newest restore only if its run has rescue."""
    asked = list[str]()
    monkeypatch.setattr(mlrs.Run, "newest_restore", lambda run, before: asked.append(run.id))  # noqa: ARG005
    for name, rescue in (("a", False), ("b", True)):
        training = Training()
        run = open_run(advisor, name, horizon=HORIZON)
        scheduler = AdvisedLR(training.optimizer, run, lagged=True, rescue=rescue)
        training.train(scheduler, 3)
    assert set(asked) == {"b"}


def test_a_run_that_has_begun_goes_on_without(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A run that was begun without rescue is continued without it, and without an error."""
    open_run(advisor, "a", horizon=HORIZON).next_lr(0, 1.0)
    training = Training()
    run = open_run(advisor, "a")
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    training.train(scheduler, 2, bad=[1])
    assert restored(daemon) == []
    assert not daemon.runs["a"].config.rescue


def test_ranks_that_each_report_keep_no_copy(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Where each rank opens the run with `rank`, nothing is asked for."""
    training = Training()
    run = open_run(advisor, "a", rank=0, world_size=1)
    scheduler = AdvisedLR(training.optimizer, run, model=training.model)
    training.train(scheduler, 3, bad=[1])
    assert restored(daemon) == []
    assert not daemon.runs["a"].config.rescue
