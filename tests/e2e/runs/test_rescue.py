"""Rescue through real processes: trainings that blow up end well, and kills change no bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR
from tests.support.daemon import Daemon
from tests.support.ports import steady_port
from tests.support.runs import open_run

STEPS, WARMUP = 400, 150
BAD = (30, 60, 90)
"""The steps of a run whose losses are not finite, like those of the steps before them."""
OVERFITS = 140
"""The step of that run at which it is found to overfit."""
KILLS = {30, 31, 61, 125, 141}
"""The steps before which the daemon is killed: between two losses that are not finite, right after two alarms
for them, while a rise of the validation losses is checked, and right after the alarm for that."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let torch's threads not spin on the cores that the daemon needs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Trained(NamedTuple):
    """How a training went."""

    first_loss: float
    last_loss: float
    """The mean of the last twenty."""
    restores: tuple[int, ...]
    restored: tuple[int, ...]


def train(address: str, name: str, optimizer_of: Any, lr: float, *, rescue: bool) -> Trained:
    """Train a small network on a small task at a learning rate that rises far too high."""
    torch.manual_seed(0)
    x, w = torch.randn(512, 20), torch.randn(20, 1)
    y = torch.tanh(x @ w) + 0.1 * torch.randn(512, 1)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer, batches, losses = optimizer_of(model.parameters()), torch.Generator().manual_seed(1), []
    with mlrs.connect(address, timeout_s=30) as advisor:
        run = advisor.run("t", id=name, policy="constant", base_lr=lr, warmup=WARMUP, horizon=STEPS)
        scheduler = AdvisedLR(optimizer, run, rescue=rescue)
        for _ in range(STEPS):
            batch = torch.randint(0, 512, (32,), generator=batches)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x[batch]), y[batch])
            scheduler.observe(loss)
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        chunks = list(advisor.watch(name))
    return Trained(
        losses[0],
        sum(losses[-20:]) / 20,
        tuple(step for chunk in chunks for step in chunk.restores),
        tuple(step for chunk in chunks for step in chunk.restored),
    )


@pytest.mark.parametrize("kind", ["momentum", "adamw"])
def test_a_training_that_blows_up_is_rescued(tmp_path: Path, kind: str) -> None:
    """At the same learning rate it is lost without rescue, and ends below its first loss with it."""

    def optimizer_of(weights: Any) -> torch.optim.Optimizer:
        if kind == "adamw":
            return torch.optim.AdamW(weights, lr=0.3)
        return torch.optim.SGD(weights, lr=0.3, momentum=0.9)

    with Daemon(tmp_path / "data") as daemon:
        lost = train(daemon.address, "lost", optimizer_of, 0.3, rescue=False)
        saved = train(daemon.address, "saved", optimizer_of, 0.3, rescue=True)
    assert lost.restores == lost.restored == ()
    assert not lost.last_loss < 0.9 * lost.first_loss  # NaN, or what the mean of the targets gives
    assert 1 <= len(saved.restores) <= 3
    assert saved.restored == tuple(step + 1 for step in saved.restores)
    assert saved.last_loss < 0.9 * saved.first_loss


class Generalized(NamedTuple):
    """How a training on few examples went."""

    validation_loss: float
    """After the last step."""
    lowest: float
    """The lowest one on the way."""
    restores: tuple[int, ...]
    restored: tuple[int, ...]


def train_on_few(address: str, name: str, *, rescue: bool) -> Generalized:
    """Train a network of many weights on few examples with much noise, and validate it every 20 steps."""
    torch.manual_seed(0)
    x, w = torch.randn(640, 20), torch.randn(20, 1)
    y = x @ w / 4 + torch.randn(640, 1)
    model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 1))
    optimizer, lowest = torch.optim.AdamW(model.parameters(), lr=0.01), math.inf

    def loss_of(part: slice) -> torch.Tensor:
        return nn.functional.mse_loss(model(x[part]), y[part])

    train, valid = slice(40), slice(40, None)
    with mlrs.connect(address, timeout_s=30) as advisor:
        run = advisor.run("t", id=name, policy="wsd", base_lr=0.01, warmup=20, horizon=STEPS)
        scheduler = AdvisedLR(optimizer, run, rescue=rescue)
        for step in range(STEPS):
            optimizer.zero_grad()
            if step and step % 20 == 0:
                with torch.no_grad():
                    validation_loss = loss_of(valid).item()
                lowest = min(lowest, validation_loss)
                run.validate(step, validation_loss)
            loss = loss_of(train)
            scheduler.observe(loss)
            loss.backward()
            optimizer.step()
            scheduler.step()
        chunks = list(advisor.watch(name))
    return Generalized(
        loss_of(valid).item(),
        lowest,
        tuple(step for chunk in chunks for step in chunk.restores),
        tuple(step for chunk in chunks for step in chunk.restored),
    )


def test_a_training_that_overfits_goes_back(tmp_path: Path) -> None:
    """It ends about as well as it ever was on validation examples; without rescue much worse."""
    with Daemon(tmp_path / "data") as daemon:
        plain = train_on_few(daemon.address, "plain", rescue=False)
        saved = train_on_few(daemon.address, "saved", rescue=True)
    assert plain.restores == ()
    assert plain.validation_loss > 1.1 * plain.lowest
    assert len(saved.restores) >= 1
    assert saved.restored == tuple(step + 1 for step in saved.restores)
    assert saved.validation_loss < 1.05 * saved.lowest <= 1.05 * plain.lowest


def observe(run: mlrs.Run, daemon: Daemon | None) -> list[tuple[float, bool]]:
    """Observe losses some of which are not finite, and say after each that a state was restored.

    Validation losses are lowest at step 50, and higher from then on, whatever the rate.
    """
    told: list[tuple[float, bool]] = []
    for step in range(180):
        if daemon is not None and step in KILLS:
            daemon.kill()
            daemon.start()
        if step and step % 10 == 0:
            run.validate(step, 1.0 if step == 50 else 2.0)
        loss = math.nan if {step, step + 1} & set(BAD) else 2.0 / (1 + step)
        advice = run.observe(step, loss, restored=bool(told and told[-1][1])).advice()
        told.append((advice.learning_rate, advice.restore))
    return told


def test_kills_change_no_bit(tmp_path: Path) -> None:
    """A daemon that is killed before, at and after alarms gives the same learning rates and flags."""
    told, records = [], list[list[list[int]]]()
    for killed in (False, True):
        listen = f"127.0.0.1:{steady_port()}"
        with (
            Daemon(tmp_path / f"data-{killed}", listen=listen) as daemon,
            mlrs.connect(daemon.address, timeout_s=30) as advisor,
        ):
            run = open_run(advisor, "a", horizon=200, rescue=True, fallback=None)
            told.append(observe(run, daemon if killed else None))
            chunks = list(advisor.watch("a"))
            records.append([[step for chunk in chunks for step in chunk.restores]])
            records[-1].append([step for chunk in chunks for step in chunk.restored])
    assert told[0] == told[1]
    alarms = [*BAD, OVERFITS]
    assert [step for step, (_, restore) in enumerate(told[0]) if restore] == alarms
    assert records == [[alarms, [step + 1 for step in alarms]]] * 2
