"""The signals of the PyTorch adapter: each number against whole copies of weights and gradients."""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR
from mlrs.torch import loss as _loss
from mlrs.torch.directions import directions
from mlrs.torch.signals import recorder as _recorder
from mlrs.torch.signals import sample as _sample
from mlrs.torch.signals import sums as _sums
from mlrs.torch.signals.cadence import ALL_UNTIL, EVERY, is_measured
from mlrs.torch.signals.recorder import Recorder
from mlrs.torch.signals.sample import coprime
from mlrs.torch.signals.sums import numbers_of, signals_of
from mlrs.types import Signals
from mlrs_train.evolution.trainings.signals import is_taken
from tests.client.fake_daemon import TRIAL_STEPS
from tests.support.runs import open_run

Sent = dict[int, Signals]
"""Signals by the step whose observation they were sent with."""
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgd, coupled decay": lambda groups: torch.optim.SGD(groups, weight_decay=0.1),
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9, weight_decay=0.1),
    "dampening": lambda groups: torch.optim.SGD(groups, momentum=0.9, dampening=0.5),
    "nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    # which leaves other gradients behind than it has seen
    "nesterov, foreach": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True, foreach=True),
    "maximize": lambda groups: torch.optim.SGD(groups, momentum=0.9, maximize=True),
    "adam": torch.optim.Adam,
    "adam, coupled decay": lambda groups: torch.optim.Adam(groups, weight_decay=0.1),
    "amsgrad": lambda groups: torch.optim.Adam(groups, amsgrad=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1),
    "adamw, foreach": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, foreach=True),
    "adamw, fused": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, fused=True),
    "nadam": lambda groups: torch.optim.NAdam(groups, weight_decay=0.1, decoupled_weight_decay=True),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


@pytest.fixture
def run(advisor: mlrs.Advisor) -> mlrs.Run:
    """An open run."""
    return open_run(advisor, "a")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Return the signals that are handed to runs."""
    seen: Sent = {}
    observe = mlrs.Run.observe

    def noting(self: mlrs.Run, step: int, loss: float, **options: Any) -> mlrs.Pending:
        if (signals := options.get("signals")) is not None:
            assert step not in seen
            seen[step] = signals
        return observe(self, step, loss, **options)

    monkeypatch.setattr(mlrs.Run, "observe", noting)
    return seen


def network() -> nn.Sequential:
    """Return a small network in double precision, with one parameter that is never trained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model[4].bias.requires_grad_(requires_grad=False)
    return model


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a copy of all numbers in some tensors."""
    return torch.cat([one.detach().clone().flatten() for one in tensors])


class Copies:
    """The signals of an optimizer's steps, from whole copies of what it changes."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.found: list[Signals] = []
        self.formulas: list[torch.Tensor] = []
        self._earlier: torch.Tensor | None = None
        optimizer.register_step_pre_hook(self._copy)
        optimizer.register_step_post_hook(self._compare)

    def _copy(self, optimizer: Any, _args: object, _kwargs: object) -> None:
        groups = optimizer.param_groups
        self._pairs = [
            (weight, group) for group in groups for weight in group["params"] if weight.grad is not None
        ]
        self._weights = [weight.detach().clone() for weight, _ in self._pairs]
        self._gradient = flat([weight.grad for weight, _ in self._pairs])
        if type(optimizer) in {torch.optim.SGD, torch.optim.Adam}:
            found = directions(optimizer, [float(group["lr"]) for group in groups])
            self.formulas.append(-flat([found[weight] for weight, _ in self._pairs]))

    def _compare(self, _optimizer: object, _args: object, _kwargs: object) -> None:
        updates = []
        for (weight, group), before in zip(self._pairs, self._weights, strict=True):
            decay = group["weight_decay"] if group.get("decoupled_weight_decay") else 0.0
            updates.append(weight.detach() - before * (1.0 - float(group["lr"]) * decay))
        update, weights, gradient = flat(updates), flat([weight for weight, _ in self._pairs]), self._gradient
        self.found.append(
            Signals(
                update_norm2=float(update @ update),
                param_norm2=float(weights @ weights),
                grad_norm2=float(gradient @ gradient),
                grad_dot_update=float(gradient @ update),
                grad_dot_previous_update=(
                    math.nan if self._earlier is None else float(gradient @ self._earlier)
                ),
                log_relative_update=relative(updates, [weight for weight, _ in self._pairs]),
            )
        )
        self._earlier = update


def relative(updates: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> float:
    """Return the mean over matrices, or over vectors if there are none, of ln(norm of u / norm of w)."""
    pairs = [(u, w) for u, w in zip(updates, weights, strict=True) if w.dim() > 1]
    logs = [
        math.log((float(u.norm()) + 1e-12) / (float(w.detach().norm()) + 1e-12))
        for u, w in pairs or zip(updates, weights, strict=True)
    ]
    return math.fsum(logs) / len(logs)


def check(sent: Sent, expected: Sequence[Signals], *, rel: float = 1e-9) -> None:
    """Check that the signals of each step were sent with the next observation."""
    assert list(sent) == list(range(1, len(expected) + 1))
    for found, wanted in zip(sent.values(), expected, strict=True):
        assert astuple(found) == pytest.approx(astuple(wanted), rel=rel, nan_ok=True)


class Problem:
    """A least-squares fit, whose layers have learning rates of their own."""

    def __init__(self, kind: str = "momentum", model: nn.Module | None = None) -> None:
        self.model = network() if model is None else model
        first, *others = list(self.model.children())
        rest = [weight for layer in others for weight in layer.parameters()]
        groups = [{"params": [*first.parameters()], "lr": 0.02}, {"params": rest, "lr": 0.1}]
        self.optimizer = OPTIMIZERS[kind]([group for group in groups if group["params"]])
        self.chance = torch.Generator().manual_seed(1)

    def loss(self) -> torch.Tensor:
        """Return the loss of a new batch."""
        self.optimizer.zero_grad()
        inputs = torch.randn(8, 3, generator=self.chance, dtype=torch.float64)
        return nn.functional.mse_loss(self.model(inputs), inputs[:, :2])

    def train(self, scheduler: AdvisedLR, steps: int) -> None:
        """Train as the adapter's documentation says; the last loss has no update."""
        for _ in range(steps):
            loss = self.loss()
            scheduler.observe(loss)
            loss.backward()
            self.optimizer.step()
            scheduler.step()
        scheduler.observe(self.loss())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_numbers(run: mlrs.Run, sent: Sent, kind: str) -> None:
    """All six numbers are those of whole copies, for every optimizer, with groups of different rates."""
    problem = Problem(kind)
    scheduler = AdvisedLR(problem.optimizer, run)
    copies = Copies(problem.optimizer)
    problem.train(scheduler, 4)
    check(sent, copies.found)
    assert math.isnan(sent[1].grad_dot_previous_update)
    assert (sent[4].grad_dot_update > 0.0) == (kind == "maximize")
    for signals, formula in zip(sent.values(), copies.formulas, strict=False):
        assert signals.update_norm2 == pytest.approx(float(formula @ formula), rel=1e-9)


def test_tensor_learning_rates(run: mlrs.Run, sent: Sent) -> None:
    """A learning rate that is a tensor also decays weights apart from the update."""
    model = network()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(0.1, dtype=torch.float64), weight_decay=0.5
    )
    problem = Problem()
    problem.model, problem.optimizer = model, optimizer
    scheduler = AdvisedLR(optimizer, run)
    copies = Copies(optimizer)
    problem.train(scheduler, 3)
    check(sent, copies.found)


def test_clipped_gradients(run: mlrs.Run, sent: Sent) -> None:
    """The gradients are those that the optimizer saw, after clipping."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    for _ in range(2):
        loss = problem.loss()
        scheduler.observe(loss)
        loss.backward()
        nn.utils.clip_grad_norm_(problem.model.parameters(), 0.01)
        problem.optimizer.step()
        scheduler.step()
    scheduler.observe(1.0)
    assert [one.grad_norm2 for one in sent.values()] == pytest.approx([1e-4, 1e-4], rel=1e-3)


def test_accumulation(run: mlrs.Run, sent: Sent) -> None:
    """Several micro-batches make one step, and their sum is its gradient."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run, accumulation_steps=2)
    copies = Copies(problem.optimizer)
    for count in (2, 2, 1, 2):
        losses = [problem.loss() for _ in range(count)]
        for loss in losses:
            scheduler.observe(loss)
            loss.backward()
        problem.optimizer.step()
        scheduler.step()
    check(sent, copies.found[:3])


@pytest.mark.parametrize("fused", [False, True])
def test_scaler(run: mlrs.Run, sent: Sent, fused: bool) -> None:  # noqa: FBT001
    """Gradients are unscaled; a step that the scaler skips has no signals, and is no step before the next."""
    problem, twin = Problem(), Problem()
    problem.optimizer = torch.optim.AdamW(problem.model.parameters(), lr=0.1, weight_decay=0.3, fused=fused)
    twin.optimizer = torch.optim.AdamW(twin.model.parameters(), lr=0.1, weight_decay=0.3)
    scheduler = AdvisedLR(problem.optimizer, run)
    copies = Copies(twin.optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(5):
        loss, own = problem.loss(), twin.loss()
        scheduler.observe(loss)
        scaler.scale(loss).backward()
        own.backward()
        if step == 2:
            next(problem.model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
        scaler.step(problem.optimizer)
        scaler.update()
        scheduler.step()
        if step != 2:
            for group in twin.optimizer.param_groups:
                group["lr"] = scheduler.get_last_lr()[0]
            twin.optimizer.step()
    scheduler.observe(1.0)
    assert list(sent) == [1, 2, 4, 5]
    for found, wanted in zip(sent.values(), copies.found, strict=True):
        assert astuple(found)[:4] == pytest.approx(astuple(wanted)[:4], rel=1e-5)
        assert found.log_relative_update == pytest.approx(wanted.log_relative_update, rel=1e-5)
    assert sent[5].grad_dot_previous_update == pytest.approx(
        copies.found[3].grad_dot_previous_update, rel=1e-5
    )
    # A fused optimizer cannot tell the host that it skipped: that update was 0.
    assert sent[4].grad_dot_previous_update == pytest.approx(0.0 if fused else math.nan, nan_ok=True)


def test_closures(run: mlrs.Run, sent: Sent) -> None:
    """Where a closure is called several times in a step, its first gradient and the whole update count."""
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    problem = Problem()
    problem.model, problem.optimizer = model, optimizer
    scheduler = AdvisedLR(optimizer, run)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    updates, first = list[torch.Tensor](), list[torch.Tensor]()

    def closure() -> torch.Tensor:
        loss = problem.loss()
        scheduler.observe(loss)
        loss.backward()
        if len(first) == len(updates):
            first.append(flat([weight.grad for weight in trained if weight.grad is not None]))
        return loss

    for _ in range(3):
        before = flat(trained)
        optimizer.step(closure)
        scheduler.step()
        updates.append(flat(trained) - before)
    scheduler.observe(1.0)
    assert list(sent) == [1, 2, 3]
    for step, found in sent.items():
        update, gradient = updates[step - 1], first[step - 1]
        assert found.update_norm2 == pytest.approx(float(update @ update), rel=1e-9)
        assert found.grad_dot_update == pytest.approx(float(gradient @ update), rel=1e-9)
        if step > 1:
            dot = float(gradient @ updates[step - 2])
            assert found.grad_dot_previous_update == pytest.approx(dot, rel=1e-9)


@pytest.mark.parametrize("is_before", [False, True])
def test_step_with_a_loss(run: mlrs.Run, sent: Sent, is_before: bool) -> None:  # noqa: FBT001
    """`step(loss)` sends the signals of the last update, whether it comes before or after the optimizer's."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    copies = Copies(problem.optimizer)
    for _ in range(4):
        loss = problem.loss()
        loss.backward()
        if is_before:
            scheduler.step(loss)
        problem.optimizer.step()
        if not is_before:
            scheduler.step(loss)
    expected = copies.found[:3] if is_before else copies.found[1:]  # the first update had no advice
    for found, wanted in zip(sent.values(), expected, strict=True):
        assert astuple(found)[:4] == pytest.approx(astuple(wanted)[:4], rel=1e-9)
    assert list(sent) == [1, 2, 3]


def test_cadence(run: mlrs.Run, sent: Sent) -> None:
    """All of the first steps are measured and then one in eight, each beside the update before it."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    copies = Copies(problem.optimizer)
    steps = ALL_UNTIL + 3 * EVERY
    problem.train(scheduler, steps)
    measured = [step for step in range(steps) if step < ALL_UNTIL or step % EVERY == 0]
    assert list(sent) == [step + 1 for step in measured]
    for step in measured:
        wanted = copies.found[step]
        assert astuple(sent[step + 1]) == pytest.approx(astuple(wanted), rel=1e-9, nan_ok=True)


def test_training_is_the_same(advisor: mlrs.Advisor, sent: Sent) -> None:
    """With signals and without, weights are the same to the bit."""
    ended = []
    for signals in (True, False):
        sent.clear()
        problem = Problem("nesterov, foreach")
        scheduler = AdvisedLR(problem.optimizer, open_run(advisor, f"run-{signals}"), signals=signals)
        problem.train(scheduler, 12)
        ended.append(flat([*problem.model.parameters()]))
        assert len(sent) == (12 if signals else 0)
    assert torch.equal(*ended)


def test_failure(
    run: mlrs.Run, sent: Sent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals that cannot be computed are off from then on, after one warning; training continues."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    copies = Copies(problem.optimizer)
    problem.train(scheduler, 2)

    def fail(*_: object) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(_recorder, "sums", fail)
    before = flat([*problem.model.parameters()])
    with caplog.at_level(logging.WARNING, "mlrs"):
        problem.loss().backward()
        problem.optimizer.step()
        scheduler.step()
        problem.train(scheduler, 3)
    check(sent, copies.found[:2])
    assert not torch.equal(before, flat([*problem.model.parameters()]))
    assert [record.getMessage() for record in caplog.records] == [
        "no signals of the optimizer's steps are sent from now on: RuntimeError('made up')"
    ]


def test_sparse_gradients(run: mlrs.Run, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A parameter with a sparse gradient is not measured, and neither are the others."""
    layer = nn.Embedding(10, 2, sparse=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scheduler = AdvisedLR(optimizer, run)
    for _ in range(3):
        optimizer.zero_grad()
        loss = layer(torch.tensor([1, 2])).sum()
        scheduler.observe(loss)
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert not sent
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_types(dtype: torch.dtype) -> None:
    """Weights of few bits are summed up in float32; complex ones count as pairs of real ones."""
    chance = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 7, generator=chance).to(dtype))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    recorder = Recorder(optimizer, is_on=True)
    weight.grad = torch.randn(6, 7, generator=chance).to(dtype)
    before = weight.detach().clone()
    recorder.before(0)
    optimizer.step()
    recorder.after()
    found = signals_of(numbers_of(recorder.take(1)))
    assert found is not None
    real = [
        torch.view_as_real(one).double() if one.is_complex() else one.double()
        for one in (weight.detach(), before, weight.grad)
    ]
    update = real[0] - real[1]
    assert found.update_norm2 == pytest.approx(float(update.square().sum()), rel=1e-5)
    assert found.param_norm2 == pytest.approx(float(real[0].square().sum()), rel=1e-5)
    assert found.grad_dot_update == pytest.approx(float((real[2] * update).sum()), rel=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_memory_formats(same: bool) -> None:  # noqa: FBT001
    """Coordinates of weights and gradients match, in whatever order each lies in memory."""
    weight = nn.Parameter(torch.randn(8, 3, 5, 5).contiguous(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    recorder = Recorder(optimizer, is_on=True)
    gradient = torch.randn(8, 3, 5, 5)
    weight.grad = gradient.contiguous(memory_format=torch.channels_last) if same else gradient
    recorder.before(0)
    optimizer.step()
    recorder.after()
    found = signals_of(numbers_of(recorder.take(1)))
    assert found is not None
    assert found.grad_dot_update == pytest.approx(-0.5 * float(gradient.square().sum()), rel=1e-4)


def test_vectors_alone(run: mlrs.Run, sent: Sent) -> None:
    """Where no tensor has two dimensions, all count for the relative update, also one that is 0."""
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(()))]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    scheduler = AdvisedLR(optimizer, run)
    scheduler.observe(1.0)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    scheduler.step()
    scheduler.observe(1.0)
    expected = (math.log(1e-12 / math.sqrt(3.0)) + 0.0) / 2.0
    assert sent[1].log_relative_update == pytest.approx(expected, rel=1e-6)


def test_infinite_gradients(run: mlrs.Run, sent: Sent) -> None:
    """A number that is not finite is not known."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scheduler = AdvisedLR(optimizer, run)
    scheduler.observe(1.0)
    weight.grad = torch.tensor([math.inf, 0.0, 0.0])
    optimizer.step()
    scheduler.step()
    scheduler.observe(1.0)
    assert all(map(math.isnan, astuple(sent[1])))


def test_large_models_are_sampled() -> None:
    """The numbers of a large model are estimates from a fixed sample of it, a few percent off."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(500, 1000), nn.Tanh(), nn.Linear(1000, 700), nn.Tanh(), nn.Linear(700, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    recorder, copies = Recorder(optimizer, is_on=True), Copies(optimizer)
    for step in range(4):
        optimizer.zero_grad()
        model(torch.randn(16, 500)).square().mean().backward()
        recorder.before(step)
        optimizer.step()
        recorder.after()
        found = signals_of(numbers_of(recorder.take(step + 1)))
        assert found is not None
        wanted = copies.found[step]
        assert found.update_norm2 == pytest.approx(wanted.update_norm2, rel=0.05)
        assert found.param_norm2 == pytest.approx(wanted.param_norm2, rel=0.05)
        assert found.grad_norm2 == pytest.approx(wanted.grad_norm2, rel=0.1)
        assert found.grad_dot_update == pytest.approx(wanted.grad_dot_update, rel=0.1)
        assert found.log_relative_update == pytest.approx(wanted.log_relative_update, abs=0.05)
    (piece,) = recorder._sample.pieces  # type: ignore[union-attr]
    total = sum(weight.numel() for weight in model.parameters())
    assert total > 1_000_000
    assert sum(part.count for part in piece.parts) < 1.2 * _sample.COORDINATES + 6 * 2 * _sample.LEAST


@given(st.integers(1, 2000), st.integers(1, 10**7))
def test_strides(stride: int, size: int) -> None:
    """The stride of a sample visits all columns of a matrix, and is hardly longer than it was asked to be."""
    found = coprime(stride, size)
    assert math.gcd(found, size) == 1
    assert stride <= found < stride + 100


def test_a_search_has_none(advisor: mlrs.Advisor, sent: Sent) -> None:
    """The steps of trials are not measured, and the first step after them has none before it."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, advisor.run("task", id="a", horizon=1000))
    copies = Copies(problem.optimizer)
    batches = [torch.randn(8, 3, dtype=torch.float64) for _ in range(4 + TRIAL_STEPS)]
    result = scheduler.search(problem.model, lambda model, batch: model(batch).square().mean(), batches)
    assert result.learning_rate is not None
    assert not sent
    trials = len(copies.found)
    problem.train(scheduler, 2)
    assert list(sent) == [1, 2]
    assert math.isnan(sent[1].grad_dot_previous_update)
    assert sent[1].update_norm2 == pytest.approx(copies.found[trials].update_norm2, rel=1e-9)


def test_a_loaded_state(run: mlrs.Run, sent: Sent) -> None:
    """After a state is loaded, no step from before counts: it is sent no more, nor compared with."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    problem.train(scheduler, 3)
    problem.optimizer.step()
    scheduler.step()
    state = copy.deepcopy(scheduler.state_dict())
    scheduler.load_state_dict(state)
    sent.clear()
    problem.train(scheduler, 2)
    assert list(sent) == [5, 6]
    assert math.isnan(sent[5].grad_dot_previous_update)
    assert not math.isnan(sent[6].grad_dot_previous_update)


@pytest.mark.parametrize("lagged", [False, True])
def test_losses_on_a_device(
    run: mlrs.Run,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    lagged: bool,  # noqa: FBT001
) -> None:
    """Where another thread reads the loss, it also reads the signals; the loop waits for neither."""
    monkeypatch.setattr(_loss, "_is_on_host", lambda _: False)
    readers = set()
    numbers = _sums.Measured.numbers

    def noting(measured: _sums.Measured) -> list[float]:
        readers.add(threading.current_thread().name.rstrip("0123456789"))
        return numbers(measured)

    monkeypatch.setattr(_sums.Measured, "numbers", noting)
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run, lagged=lagged)
    copies = Copies(problem.optimizer)
    problem.train(scheduler, 4)
    scheduler._reader.submit(int).result()  # type: ignore[union-attr]  # all is read then
    check(sent, copies.found)
    assert readers == {"mlrs-loss_"}


def test_numbers_that_are_late(run: mlrs.Run, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop whose losses are numbers already does not wait for the signals: it sends none."""
    monkeypatch.setattr(_sums.Measured, "has_arrived", lambda _: False)
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    problem.train(scheduler, 2)
    assert not sent


def test_an_observation_that_is_sent_again(
    run: mlrs.Run, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observation that failed is sent again with the same signals, or without any if it had none."""
    problem = Problem()
    scheduler = AdvisedLR(problem.optimizer, run)
    problem.train(scheduler, 1)
    problem.loss().backward()
    problem.optimizer.step()
    scheduler.step()
    taken = []
    observe = scheduler._observe

    def fail(step: int, mean: float, samples: float, signals: Signals | None) -> Any:
        taken.append(signals)
        if len(taken) == 1:
            raise KeyboardInterrupt
        return observe(step, mean, samples, signals)

    monkeypatch.setattr(scheduler, "_observe", fail)
    with pytest.raises(KeyboardInterrupt):
        scheduler.observe(1.0)
    problem.optimizer.step()
    assert taken[0] is not None
    assert taken[0] == taken[1] == sent[2]


def recorder() -> tuple[torch.optim.SGD, Recorder]:
    """Return an optimizer of one weight with a gradient of 1, and the recorder of its steps."""
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.ones(4, 4)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    return optimizer, Recorder(optimizer, is_on=True)


def test_a_step_that_was_not_made_leaves_nothing() -> None:
    """Where the optimizer raised at a measured step, a later step that is not measured has no signals."""
    optimizer, recorded = recorder()
    recorded.before(104)
    recorded.before(105)
    optimizer.step()
    recorded.after()
    assert recorded.take(106) is None


def test_several_updates_in_a_step_have_no_signals() -> None:
    """An optimizer that steps twice within a step of the scheduler is not measured; the next step is."""
    optimizer, recorded = recorder()
    for _ in range(2):
        recorded.before(1)
        optimizer.step()
        recorded.after()
    assert recorded.take(2) is None
    recorded.before(2)
    optimizer.step()
    recorded.after()
    measured = recorded.take(3)
    assert measured is not None


def test_networks_are_trained_on_the_same_steps() -> None:
    """Meta-training shows signals of the steps that are measured here, but for step 0."""
    assert [is_taken(step) for step in range(1, 300)] == [is_measured(step) for step in range(1, 300)]
