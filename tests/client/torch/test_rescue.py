"""The copy that rescue keeps of a PyTorch training: when it is made, and how it is put back."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mlrs
from mlrs.errors import InvalidArgumentError
from mlrs.torch import AdvisedLR
from mlrs.torch.loss import Loss
from mlrs.torch.rescue import Health, Rescue, Then, free_memory
from tests.client.fake_daemon import FakeDaemon
from tests.support.runs import open_run

HORIZON = 200
"""A copy is replaced after 20 healthy steps."""
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01),
    "lbfgs": lambda weights: torch.optim.LBFGS(weights, lr=0.1, max_iter=3),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let torch's threads not spin on the cores that the daemon needs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Training:
    """A small network with buffers, whose losses can be made bad."""

    def __init__(self, kind: str = "momentum") -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.x, self.y = torch.randn(8, 3), torch.randn(8, 1)

    def loss(self, *, is_bad: bool = False) -> torch.Tensor:
        """Return the loss, with gradients; a bad one is NaN, and so are they."""
        self.optimizer.zero_grad()
        loss: torch.Tensor = nn.functional.mse_loss(self.model(self.x), self.y)
        loss = loss * math.nan if is_bad else loss
        loss.backward()
        return loss

    def train(self, scheduler: AdvisedLR, steps: int, bad: Sequence[int] = ()) -> None:
        """Take steps as the adapter's documentation says; the losses of some are bad."""
        for step in range(steps):
            scheduler.observe(self.loss(is_bad=step in bad))
            self.optimizer.step()
            scheduler.step()

    def state(self) -> str:
        """Return everything that a step changes, as text of all bits."""
        facts = (self.model.state_dict(), self.optimizer.state_dict()["state"])
        with torch.no_grad():
            return repr(_plain(facts))

    def places(self) -> dict[str, tuple[int, int]]:
        """Return which tensors the model has, and the optimizer's state beside them, and where in memory.

        Without the history of LBFGS, which has other tensors after each step.
        """
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            for number, state in enumerate(self.optimizer.state.values()):
                tensors |= {f"{number}.{name}": part for name, part in state.items() if part is not None}
        return {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors.items()}

    def is_finite(self) -> bool:
        """Return whether every number of the model is finite."""
        return all(bool(one.isfinite().all()) for one in self.model.state_dict().values())


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double().tolist()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def restored(daemon: FakeDaemon, run_id: str = "a") -> list[int]:
    """Return the steps before which a state was restored, as the daemon has them."""
    return [step for step, extras in daemon.runs[run_id].extras.items() if extras.restored]


# ----------------------------------------------------------------------------------- the copy


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_is_put_back_in_place(kind: str, before: int) -> None:
    """Weights, buffers and the optimizer's state are as they were, to the bit, in the same tensors."""
    training = Training(kind)

    def take(steps: int) -> None:
        for _ in range(steps):
            training.optimizer.step(training.loss) if kind == "lbfgs" else (
                training.loss(),
                training.optimizer.step(),
            )

    take(before)
    rescue = Rescue(training.optimizer, training.model, None, is_on=True)
    rescue.keep()
    expected, places = training.state(), training.places()
    for _ in range(2):
        take(3)
        training.loss(is_bad=True)
        if kind != "lbfgs":
            training.optimizer.step()
        assert training.state() != expected
        assert rescue.restore()
        assert training.state() == expected
    now = training.places()
    assert {name: now[name] for name in places} == places
    take(1)
    assert training.is_finite()


def test_a_copy_keeps_nothing_that_the_optimizer_has_dropped() -> None:
    """What left an optimizer's history takes no memory on the device, and is made anew if it is put back."""
    training = Training("lbfgs")
    (weights,) = (group["params"] for group in training.optimizer.param_groups)
    training.optimizer = torch.optim.LBFGS(weights, lr=0.1, max_iter=3, history_size=2)
    training.optimizer.step(training.loss)
    rescue = Rescue(training.optimizer, training.model, None, is_on=True)
    rescue.keep()
    expected, (state,) = training.state(), training.optimizer.state.values()
    history = [weakref.ref(one) for one in state["old_dirs"]]
    assert history
    for _ in range(2):
        training.optimizer.step(training.loss)
        training.optimizer.step(training.loss)
        gc.collect()
        assert [one() for one in history] == [None] * len(history)
        assert rescue.restore()
        assert training.state() == expected
        history = [weakref.ref(one) for one in state["old_dirs"]]


def test_only_what_the_optimizer_has_is_copied_without_a_model() -> None:
    """Without the model, buffers stay as they are; gradients, settings and generators always do."""
    training = Training()
    rescue = Rescue(training.optimizer, None, None, is_on=True)
    rescue.keep()
    training.loss()
    training.optimizer.step()
    buffers = {name: one.clone() for name, one in training.model.named_buffers()}
    training.optimizer.param_groups[0]["lr"] = 0.7
    gradients = [one.grad.clone() for one in training.model.parameters() if one.grad is not None]
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    assert rescue.restore()
    assert all(torch.equal(one, buffers[name]) for name, one in training.model.named_buffers())
    assert training.optimizer.param_groups[0]["lr"] == 0.7
    now = [one.grad for one in training.model.parameters() if one.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(now, gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), drawn)


def test_nothing_is_restored_without_a_copy() -> None:
    """Before the first copy, after it was dropped, and where rescue is off, there is nothing to put back."""
    training = Training()
    rescue, off = (Rescue(training.optimizer, None, None, is_on=is_on) for is_on in (True, False))
    assert not rescue.restore()
    rescue.keep()
    off.keep()
    assert rescue.restore()
    rescue.forget()
    assert not rescue.restore()
    assert not off.restore()


def test_a_copy_that_fails_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a copy cannot be made, as for want of memory, one warning says so, and there is none."""
    training = Training()
    rescue = Rescue(training.optimizer, None, None, is_on=True)
    monkeypatch.setattr(
        "mlrs.torch.copies._copied_to_host", lambda _: (_ for _ in ()).throw(MemoryError("full"))
    )
    rescue.keep()
    rescue.keep()
    assert [record.message for record in caplog.records] == [
        "this training keeps no copy to restore from now on: MemoryError('full')"
    ]
    assert not rescue.restore()


def test_the_model_must_be_one() -> None:
    """Something else as the model is an error that names the argument."""
    with pytest.raises(InvalidArgumentError, match="must be a torch") as caught:
        Rescue(Training().optimizer, "model", None, is_on=True)
    assert caught.value.field == "model"


# ------------------------------------------------------------------------------ when it is made


def decided(
    losses: Sequence[float],
    *,
    restores: Sequence[int] = (),
    first: int = 0,
    horizon: int | None = HORIZON,
) -> dict[int, Then]:
    """Return what is done at the steps of a run where that is something."""
    health, done = Health(first), {}
    for step, loss in enumerate(losses, first):
        health.note(step, loss)
        then = health.then(step, restore=step in restores, horizon=horizon)
        assert then == health.then(step, restore=False, horizon=horizon)
        if then != Then.NOTHING:
            done[step] = then
    return done


def test_a_copy_is_replaced_after_each_healthy_tenth() -> None:
    """The first step is copied, and then one of each twenty."""
    assert list(decided([2.0 - 0.005 * step for step in range(HORIZON)])) == list(range(0, HORIZON, 20))


@pytest.mark.parametrize("seed", range(5))
def test_noise_delays_no_copy_for_long(seed: int) -> None:
    """Under losses that vary by a third, copies come nearly as often."""
    noise = np.exp(0.3 * np.random.default_rng(seed).normal(size=HORIZON))
    kept = list(decided((noise * np.linspace(2.0, 0.5, HORIZON)).tolist()))
    assert len(kept) >= 6
    assert max(np.diff([*kept, HORIZON])) < 60


def test_bad_losses_and_alarms_delay_the_next_copy() -> None:
    """After a loss that is not finite, and after an advice to restore, a whole healthy tenth must pass."""
    losses = [1.0] * 100
    losses[30] = math.nan
    done = decided(losses, restores=[60])
    assert done == dict.fromkeys((0, 20, 51), Then.KEEP) | {60: Then.RESTORE} | {81: Then.KEEP}


@pytest.mark.parametrize("worse", [2.3, 30.0])
def test_a_sick_training_is_not_copied(worse: float) -> None:
    """What has lost what it had gained is not copied while the daemon may still tell, though it is steady."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[worse] * 89]
    assert list(decided(losses)) == [0, 20, 40]


def test_a_training_that_dies_in_a_storm_is_not_copied() -> None:
    """Losses that vary widely before the training is dead do not make it pass for healthy."""
    storm = [40.0 if step % 3 == 0 else 2.4 for step in range(20)]
    losses = [*np.linspace(2.3, 0.7, 30).tolist(), *storm, *[2.34] * 69]
    assert list(decided(losses)) == [0, 20]


def test_an_old_copy_is_replaced_though_losses_have_risen() -> None:
    """After half of the horizon that nobody complained about, losses that rose are the usual ones."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 150]
    assert list(decided(losses)) == [0, 20, 40, 140, 160, 180]


def test_an_old_copy_is_not_replaced_at_a_spike_or_right_after_a_bad_loss() -> None:
    """A loss far above those of now, and one that is not finite, delay also the copy that is overdue."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 150]
    losses[140] = 20.0
    assert list(decided(losses))[:4] == [0, 20, 40, 142]
    losses[140] = math.inf
    assert list(decided(losses))[:4] == [0, 20, 40, 161]


def test_a_copy_that_was_to_be_put_back_is_not_old() -> None:
    """After an advice to restore, another half of the horizon must pass."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 350]
    assert list(decided(losses, restores=[120])) == [0, 20, 40, 120, *range(220, 400, 20)]


def test_where_the_horizon_is_not_known_a_copy_is_replaced_after_1000_steps() -> None:
    """It is old after 5,000 steps, and later in the run after half of the steps so far."""
    healthy = [1.0] * 3001
    assert list(decided(healthy, horizon=None)) == [0, 1000, 2000, 3000]
    assert list(decided([*healthy, *[2.0] * 6000], horizon=None))[3:] == [3000, 8000, 9000]
    risen = [*[1.0] * 8001, *[2.0] * 10_000]
    assert list(decided(risen, horizon=None))[8:] == [8000, 16_001, 17_001]


def test_a_step_whose_loss_is_not_known_is_not_copied() -> None:
    """Where losses are noted late, a copy that is due waits for a step whose own loss was noted."""
    health, kept = Health(0), list[int]()
    for step in range(60):
        if step < 15 or step == 33:
            health.note(step, 1.0)
        if health.then(step, restore=False, horizon=HORIZON) == Then.KEEP:
            kept.append(step)
    assert kept == [0, 33]


def test_a_bad_loss_that_is_noted_late_delays_the_next_copy() -> None:
    """A loss that is not finite counts at its own step, also if another was noted before anybody asked."""
    health, kept = Health(0), list[int]()
    for step in range(60):
        if step != 15:
            for noted in (15, 16) if step == 16 else (step,):
                health.note(noted, math.nan if noted == 15 else 1.0)
        if health.then(step, restore=False, horizon=HORIZON) == Then.KEEP:
            kept.append(step)
    assert kept == [0, 36, 56]


def test_a_training_that_continues_is_copied_after_a_healthy_tenth() -> None:
    """A process that begins later than at step 0 does not know whether it begins healthy."""
    assert list(decided([1.0] * 50, first=70)) == [90, 110]


# ---------------------------------------------------------------------------------- the adapter


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


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_loss_that_is_told_in_one_call(advisor: mlrs.Advisor, daemon: FakeDaemon, where: str) -> None:
    """With `step(loss)`, before or after the optimizer's step, the bad update is undone."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    for step in range(6):
        loss = training.loss(is_bad=step == 3)
        if where == "before":
            scheduler.step(loss)
            training.optimizer.step()
        else:
            training.optimizer.step()
            scheduler.step(loss)
        assert training.is_finite()
    assert restored(daemon) == [4]


def test_an_update_that_a_scaler_skipped(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Where the optimizer's step was skipped, the copy is put back at the end of the step."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    for step in range(4):
        scheduler.observe(training.loss(is_bad=step == 2))
        if step != 2:
            training.optimizer.step()
        scheduler.step()
    assert restored(daemon) == [3]


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
    for step in range(23):
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


def test_a_copy_that_does_not_fit_any_more_ends_no_training(
    advisor: mlrs.Advisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a tensor has another shape than when it was copied, a warning says so, and training goes on."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    training.train(scheduler, 3)
    weight = next(iter(training.model.parameters()))
    with torch.no_grad():
        weight.set_(torch.zeros(7))
    assert not scheduler._rescue.restore()
    assert "could not be put back" in caplog.text
    assert "learning rates alone are lowered" in caplog.text


def test_a_rescue_is_told_to_the_user(advisor: mlrs.Advisor, caplog: pytest.LogCaptureFixture) -> None:
    """When a copy is put back, the log says that the training blew up."""
    training = Training()
    scheduler = AdvisedLR(training.optimizer, open_run(advisor, "a", horizon=HORIZON), model=training.model)
    training.train(scheduler, 3)
    assert scheduler._rescue.restore()
    assert "the training blew up: weights and optimizer state are back" in caplog.text


@pytest.mark.parametrize(("free", "has_copy"), [(10**9, True), (10, False), (None, True)])
def test_no_copy_is_made_that_the_host_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int | None,
    *,
    has_copy: bool,
) -> None:
    """A copy is compared with the memory that is free; where that is unknown, it is made."""
    training = Training()
    monkeypatch.setattr("mlrs.torch.rescue.free_memory", lambda: free)
    rescue = Rescue(training.optimizer, training.model, None, is_on=True)
    rescue.keep()
    assert ("GiB are free" in caplog.text) != has_copy
    assert rescue.restore() == has_copy


def test_copies_of_all_processes_of_a_host_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits once does not fit as often as a host has processes."""
    training = Training()
    size = sum(weight.nbytes for weight in training.model.parameters())
    monkeypatch.setattr("mlrs.torch.rescue.free_memory", lambda: 8 * size)
    kept = []
    for processes in ("1", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        rescue = Rescue(training.optimizer, None, None, is_on=True)
        rescue.keep()
        kept.append(rescue.restore())
    assert kept == [True, False]


def test_free_memory_is_known_on_linux() -> None:
    """It is a number of bytes, or unknown."""
    free = free_memory()
    assert free is None or free > 2**20
