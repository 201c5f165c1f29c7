"""Schedulers and their optimizers: closures, wrappers, and one scheduler at a time."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

import mlrs
from mlrs.torch import AdvisedLR, MetaStep, describe
from mlrs.torch import loss as torch_loss
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.client.torch.test_group import train
from tests.client.torch.test_ranks_errors import COMMON
from tests.support.runs import open_run

KINDS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"momentum": 0.9}),
    (Adam, {}),
    (LBFGS, {"max_iter": 1}),
    (LBFGS, {"max_iter": 4}),
    (LBFGS, {"max_iter": 4, "line_search_fn": "strong_wolfe"}),
]
STEPS = 5
RANKS = (
    COMMON
    + """
weight = torch.nn.Parameter(torch.full((2,), float(rank + 1)))
kind = {"sgd": torch.optim.SGD, "lbfgs": torch.optim.LBFGS}[cases[0]]
scheduler = AdvisedLR(kind([weight], lr=0.1), run_of("a"))

def closure():
    scheduler.optimizer.zero_grad()
    loss = weight.square().mean()
    scheduler.observe(loss)
    observed.append(loss.item())
    loss.backward()
    return loss

for step in range(3):
    observed = []
    scheduler.optimizer.step(closure)
    scheduler.step()
    print("loss", observed[0], scheduler.get_last_lr()[0], flush=True)
scheduler.detach()
attempt("detached", lambda: scheduler.observe(1.0))
finish()
"""
)


class Fit:
    """A small least-squares fit, which begins alike each time, and its closure."""

    def __init__(self, kind: type[Optimizer] = SGD, **settings: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(16, 3, generator=generator)
        self.y = torch.randn(16, 1, generator=generator)
        self.weight = nn.Parameter(torch.randn(3, 1, generator=generator))
        self.optimizer: Any = kind([self.weight], **{"lr": 0.1, **settings})
        self.evaluated: list[float] = []

    def loss(self) -> torch.Tensor:
        """Return the loss with a graph."""
        self.optimizer.zero_grad()
        loss = (self.x @ self.weight - self.y).square().mean()
        self.evaluated.append(loss.item())
        return loss

    def closure(self) -> torch.Tensor:
        """Evaluate the loss and its gradient, as PyTorch's optimizers ask for it."""
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def observed_by(self, *schedulers: AdvisedLR, parts: int = 1) -> Callable[[], torch.Tensor]:
        """Return the closure of a loop that is advised."""

        def closure() -> torch.Tensor:
            loss = self.loss()
            for scheduler in schedulers:
                for _ in range(parts):
                    scheduler.observe(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return closure


def by_hand(kind: type[Optimizer], settings: dict[str, Any]) -> tuple[list[float], torch.Tensor]:
    """Train with the advice for each step's loss set by hand before the step; return losses and weights."""
    fit, losses = Fit(kind, **settings), list[float]()
    for _ in range(STEPS):
        losses.append(fit.loss().item())
        fit.optimizer.param_groups[0]["lr"] = lr_sequence(losses)[-1]
        fit.optimizer.step(fit.closure)
    return losses, fit.weight.detach()


@pytest.fixture
def run(advisor: mlrs.Advisor) -> mlrs.Run:
    """An open run."""
    return open_run(advisor, "a")


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("how", ["positional", "keyword", "micro-batches"])
def test_closures(
    run: mlrs.Run, daemon: FakeDaemon, kind: type[Optimizer], settings: dict[str, Any], how: str
) -> None:
    """An update made with a closure uses the advice for the first loss that the closure observes in it."""
    losses, weights = by_hand(kind, settings)
    fit = Fit(kind, **settings)
    parts = 2 if how == "micro-batches" else 1
    scheduler = AdvisedLR(fit.optimizer, run, accumulation_steps=parts)
    closure = fit.observed_by(scheduler, parts=parts)
    for _ in range(STEPS):
        if how == "positional":
            fit.optimizer.step(closure)
        else:
            fit.optimizer.step(closure=closure)
        scheduler.step()
    assert torch.equal(fit.weight, weights)
    assert daemon.runs["a"].losses == losses
    assert scheduler.last_epoch == STEPS


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_closure_is_called_as_often_as_without_a_scheduler(
    run: mlrs.Run, kind: type[Optimizer], settings: dict[str, Any]
) -> None:
    """No evaluation of the loss is made twice, and the step returns what the first one did."""
    alone, fit = Fit(kind, **settings), Fit(kind, **settings)
    scheduler = AdvisedLR(fit.optimizer, run)
    alone.optimizer.param_groups[0]["lr"] = lr_sequence([fit.loss().item()])[0]
    fit.evaluated.clear()
    returned = fit.optimizer.step(fit.observed_by(scheduler))
    assert returned.item() == alone.optimizer.step(alone.closure).item()
    assert fit.evaluated == alone.evaluated


@pytest.mark.parametrize("kind", [SGD, LBFGS])
def test_a_loss_observed_before_its_closure(run: mlrs.Run, kind: type[Optimizer]) -> None:
    """A loss observed before `optimizer.step(closure)` is the step's; the closure need not observe."""
    fit = Fit(kind)
    scheduler = AdvisedLR(fit.optimizer, run)
    losses = []
    for _ in range(3):
        loss = fit.loss()
        losses.append(loss.item())
        scheduler.observe(loss)
        fit.optimizer.step(fit.closure)
        scheduler.step()
        assert scheduler.get_last_lr() == lr_sequence(losses)[-1:]


@pytest.mark.parametrize("kind", [SGD, LBFGS])
def test_a_closure_that_observes_nothing(run: mlrs.Run, kind: type[Optimizer]) -> None:
    """Where the closure observes nothing the update continues with the learning rate that there is."""
    fit = Fit(kind)
    scheduler = AdvisedLR(fit.optimizer, run)
    loss = fit.optimizer.step(fit.closure)
    assert scheduler.get_last_lr() == [0.1]
    scheduler.step(loss)
    assert scheduler.get_last_lr() == lr_sequence(fit.evaluated[:1])


@pytest.mark.parametrize("kind", [SGD, LBFGS])
def test_a_step_with_a_closure_can_be_tried_again(
    advisor: mlrs.Advisor, daemon: FakeDaemon, kind: type[Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose advice was late has not updated, and may be called again with the same closure."""
    fit, run = Fit(kind), open_run(advisor, "a", on_unavailable="error")
    scheduler = AdvisedLR(fit.optimizer, run)
    before, closure = fit.weight.detach().clone(), fit.observed_by(scheduler)
    daemon.may_answer.clear()
    monkeypatch.setattr(run._connection, "timeout_s", 0.05)
    with pytest.raises(mlrs.errors.DeadlineExceededError):
        fit.optimizer.step(closure)
    assert torch.equal(fit.weight, before)
    monkeypatch.setattr(run._connection, "timeout_s", 30.0)
    daemon.may_answer.set()
    fit.optimizer.step(closure)
    scheduler.step()
    assert not torch.equal(fit.weight, before)
    assert scheduler.get_last_lr() == lr_sequence(fit.evaluated[:1])
    assert run.next_step == 1


@pytest.mark.parametrize("kind", [SGD, LBFGS])
def test_a_step_that_was_not_closed(run: mlrs.Run, kind: type[Optimizer]) -> None:
    """A loop with closures that forgets `scheduler.step()` raises, like one without."""
    fit = Fit(kind)
    closure = fit.observed_by(AdvisedLR(fit.optimizer, run))
    fit.optimizer.step(closure)
    with pytest.raises(mlrs.errors.UsageError, match=r"scheduler\.step"):
        fit.optimizer.step(closure)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [pytest.param("sgd", marks=pytest.mark.slow), "lbfgs"])
def test_closures_of_several_ranks(daemon: FakeDaemon, tmp_path: Path, kind: str) -> None:
    """Ranks that call closures share the advice for the mean of their first losses in the same step."""
    said = train(daemon, tmp_path, RANKS, kind)
    losses, rates = list[tuple[float, ...]](), list[tuple[str, ...]]()
    for words in zip(
        *([line.split() for line in lines if line.startswith("loss")] for lines in said), strict=True
    ):
        losses.append(tuple(float(word[1]) for word in words))
        rates.append(tuple(word[2] for word in words))
    means = [sum(each) / 2 for each in losses]
    assert daemon.runs["a"].losses == means
    assert rates == [(str(lr), str(lr)) for lr in lr_sequence(means)]
    assert all(lines[-1] == "detached UsageError" for lines in said)


class Nested(SGD):
    """An optimizer whose `step` calls that of PyTorch's, hooks and all."""

    def step(self, closure: Any = None) -> Any:
        """Step as SGD does."""
        return super().step(closure)


def test_optimizers_that_call_the_hooks_twice(run: mlrs.Run) -> None:
    """A subclass that calls `super().step(closure)`, so that hooks run twice, is advised once a step."""
    losses, weights = by_hand(SGD, {})
    fit = Fit(Nested)
    scheduler = AdvisedLR(fit.optimizer, run)
    for _ in range(STEPS):
        fit.optimizer.step(fit.observed_by(scheduler))
        scheduler.step()
    assert torch.equal(fit.weight, weights)
    assert fit.evaluated == losses


class Accelerated(Optimizer):
    """A wrapper with the attributes, and the lack of them, of Accelerate's `AcceleratedOptimizer`.

    It is an `Optimizer` that never called `Optimizer.__init__`.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    @property  # type: ignore[override] # as Accelerate does
    def state(self) -> Any:
        """Return the state."""
        return self.optimizer.state

    @property  # type: ignore[override] # as Accelerate does
    def param_groups(self) -> Any:
        """Return the parameter groups."""
        return self.optimizer.param_groups

    @property  # type: ignore[override] # as Accelerate does
    def defaults(self) -> Any:
        """Return the defaults."""
        return self.optimizer.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 # PyTorch's signature
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        """Step."""
        return self.optimizer.step(closure)


class Plain:
    """A wrapper that is no `Optimizer`."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


@pytest.mark.parametrize("wrap", [Accelerated, Plain, lambda inner: Plain(Accelerated(Accelerated(inner)))])
@pytest.mark.parametrize("with_closure", [False, True])
def test_wrapped_optimizers(run: mlrs.Run, wrap: Callable[[Any], Any], *, with_closure: bool) -> None:
    """An optimizer that a framework has wrapped is advised as it is by itself, and described alike."""
    losses, weights = by_hand(SGD, {"momentum": 0.9})
    fit = Fit(SGD, momentum=0.9)
    inner, fit.optimizer = fit.optimizer, wrap(fit.optimizer)
    scheduler = AdvisedLR(fit.optimizer, run)
    assert scheduler.optimizer is inner
    assert describe(fit.optimizer) == describe(inner)
    assert (run.config.optimizer, run.config.momentum) == ("momentum", 0.9)
    for _ in range(STEPS):
        if with_closure:
            fit.optimizer.step(fit.observed_by(scheduler))
        else:
            fit.observed_by(scheduler)()
            fit.optimizer.step()
        scheduler.step()
    assert torch.equal(fit.weight, weights)
    assert fit.evaluated == losses


def test_meta_steps_of_wrapped_optimizers(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A MetaStep of a wrapped optimizer makes the updates that one of the optimizer itself makes."""
    for name, wrap in [("plain", lambda inner: inner), ("wrapped", Accelerated)]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = wrap(SGD(model.parameters(), lr=0.1, momentum=0.9))
        batch = torch.randn(8, 3)
        scheduler = AdvisedLR(optimizer, open_run(advisor, name, meta=True))
        meta = MetaStep(model, _squares, optimizer, scheduler, every=2)
        for _ in range(4):
            optimizer.zero_grad()
            loss = _squares(model, batch)
            scheduler.observe(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            meta.step(batch)
            scheduler.step()
    assert daemon.runs["plain"].alignments == daemon.runs["wrapped"].alignments != {}


def _squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(model(batch).square().mean())


@pytest.mark.parametrize("optimizer", [None, 5, Plain(SGD([nn.Parameter(torch.ones(1))])).step])
def test_what_is_no_optimizer(run: mlrs.Run, optimizer: Any) -> None:
    """What neither is an optimizer nor holds one is refused by name."""
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        AdvisedLR(optimizer, run)
    assert caught.value.field == "optimizer"


def test_the_newest_scheduler_of_an_optimizer(advisor: mlrs.Advisor) -> None:
    """Another scheduler takes an optimizer over; the one before changes no learning rate, and says why."""
    fit = Fit()
    first = AdvisedLR(fit.optimizer, open_run(advisor, "a"))
    first.step(fit.loss())
    saved = first.state_dict()
    first.observe(2.0)
    second = AdvisedLR(Plain(fit.optimizer), open_run(advisor, "b"))  # type: ignore[arg-type] # wraps one
    second.observe(fit.loss())
    fit.optimizer.step()
    expected = lr_sequence(fit.evaluated[1:])
    assert second.get_last_lr() == [fit.optimizer.param_groups[0]["lr"]] == expected
    calls: list[Callable[[], object]] = [
        first.step,
        lambda: first.observe(1.0),
        lambda: first.step(1.0),
        lambda: first.load_state_dict(saved),
    ]
    for call in calls:
        with pytest.raises(mlrs.errors.UsageError, match="another AdvisedLR"):
            call()
    assert [group["lr"] for group in fit.optimizer.param_groups] == expected
    second.step()


def test_a_scheduler_that_cannot_begin_takes_nothing_over(advisor: mlrs.Advisor) -> None:
    """Where making another scheduler fails, the one before stays."""
    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, open_run(advisor, "a"))
    with pytest.raises(mlrs.errors.InvalidArgumentError):
        AdvisedLR(fit.optimizer, open_run(advisor, "b"), accumulation_steps=0)
    scheduler.observe(fit.loss())
    fit.optimizer.step()
    assert scheduler.get_last_lr() == lr_sequence(fit.evaluated)


def test_schedulers_leave_no_hooks_behind(advisor: mlrs.Advisor) -> None:
    """However many schedulers an optimizer had, and whoever holds them, it calls the hook of one."""
    fit = Fit()
    run, schedulers = open_run(advisor, "a"), []
    for index in range(6):
        scheduler = AdvisedLR(fit.optimizer, run)
        if index % 2:
            schedulers.append(scheduler)
    assert len(fit.optimizer._optimizer_step_pre_hooks) == 1
    schedulers[-1].detach()
    assert len(fit.optimizer._optimizer_step_pre_hooks) == 0


def test_detached_schedulers(run: mlrs.Run) -> None:
    """A detached scheduler does not touch the optimizer's steps, and says so when it is used."""
    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, run)
    scheduler.observe(fit.loss())
    scheduler.detach()
    scheduler.detach()
    fit.optimizer.step()
    assert fit.optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(mlrs.errors.UsageError, match="detach"):
        scheduler.step()
    assert run.next_lr(1, 1.0) == lr_sequence([*fit.evaluated, 1.0])[1]


def test_optimizers_and_schedulers_are_collected(run: mlrs.Run) -> None:
    """Neither outlives the last that holds it: no hook, and no list of hooks, keeps them."""
    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, run)
    scheduler.step(fit.loss())
    gone = []
    for held in (scheduler, fit.optimizer):
        gone.append(weakref.ref(held))
    del scheduler, held
    gc.collect()
    assert gone[0]() is None
    del fit
    gc.collect()
    assert gone[1]() is None


def _pickled(whole: Any) -> Any:
    return pickle.loads(pickle.dumps(whole))  # noqa: S301 # of this test


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled])
def test_copies_of_an_optimizer(run: mlrs.Run, copied: Callable[[Any], Any]) -> None:
    """An optimizer with a scheduler can be copied and pickled; the copy has none, and may get its own."""
    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, run)
    scheduler.observe(fit.loss())
    other = copied(fit.optimizer)
    other.step()
    assert other.param_groups[0]["lr"] == 0.1
    AdvisedLR(other, run)
    fit.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == lr_sequence(fit.evaluated)


@pytest.mark.parametrize("lagged", [False, True])
@pytest.mark.parametrize("leave", ["load", "detach"])
def test_a_late_loss_is_not_sent(
    run: mlrs.Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, leave: str, *, lagged: bool
) -> None:
    """A loss that was on a device when a state was loaded, or the scheduler detached, is not sent."""
    computed, value, waiting = threading.Event(), torch_loss.Loss.value, threading.Event()

    def wait(loss: torch_loss.Loss) -> float:
        waiting.set()
        assert computed.wait(30)
        return value(loss)

    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, run, lagged=lagged)
    scheduler.step(torch.tensor(3.0))
    state = scheduler.state_dict()
    monkeypatch.setattr(torch_loss, "_is_on_host", lambda _: False)
    monkeypatch.setattr(torch_loss.Loss, "value", wait)
    scheduler.observe(torch.tensor(9.0))
    reader = scheduler._reader
    assert reader is not None
    assert waiting.wait(30)
    if leave == "load":
        scheduler.load_state_dict(state)
    else:
        scheduler.detach()
    computed.set()
    reader.submit(int).result(30)  # all that was to be read before
    assert run.next_step == 1
    if leave == "load":
        scheduler.step(torch.tensor(2.0))
        reader.submit(int).result(30)
        assert scheduler.get_last_lr() == lr_sequence([3.0, 2.0])[not lagged :][:1]
    run.next_lr(1, 2.0)  # which differs from another loss, and is waited for
    assert daemon.runs["a"].losses == [3.0, 2.0]


def test_a_late_loss_stays_when_a_state_is_refused(run: mlrs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is refused changes nothing: the loss that is on a device is sent and answered."""
    computed, value = threading.Event(), torch_loss.Loss.value

    def wait(loss: torch_loss.Loss) -> float:
        assert computed.wait(30)
        return value(loss)

    monkeypatch.setattr(torch_loss, "_is_on_host", lambda _: False)
    monkeypatch.setattr(torch_loss.Loss, "value", wait)
    fit = Fit()
    scheduler = AdvisedLR(fit.optimizer, run)
    scheduler.observe(torch.tensor(9.0))
    with pytest.raises(mlrs.errors.InvalidArgumentError):
        scheduler.load_state_dict({**scheduler.state_dict(), "base_lrs": None})
    computed.set()
    fit.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == lr_sequence([9.0])
