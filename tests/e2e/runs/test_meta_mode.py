"""Meta mode from a training loop to a real daemon and back, killed where it hurts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mlrs
from mlrs import Meta
from mlrs.types import Adaptation, MetaOutcome
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.runs import open_run
from tests.support.trainings import fsdp

STEPS, EVERY = 60, 4
COMPILING_S = 120.0
"""How long the first advice of a network that learns may take: its kernels are compiled."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with a small random network."""
    model = write_random_model(tmp_path / "model.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model), listen=f"127.0.0.1:{steady_port()}") as daemon:
        yield daemon


def loss_of(step: int) -> float:
    """Return a loss that depends on the step alone."""
    return 2.3 / (1 + 0.1 * step) + 0.1 * float(np.sin(step))


def alignment_of(step: int) -> float:
    """Return an alignment of either sign that depends on the step alone."""
    return float(np.cos(0.7 * step)) * 3.0


def train(
    run: mlrs.Run,
    first: int = 0,
    last: int = STEPS,
    *,
    observed: Callable[[int], None] = lambda _: None,
    adapted: Callable[[int], None] = lambda _: None,
) -> list[float | Adaptation]:
    """Train for some steps; return the advice and what came of updates, in order.

    `observed` is called between an observation and its update, `adapted` after that.
    """
    seen: list[float | Adaptation] = []
    for step in range(first, last):
        seen.append(run.next_lr(step, loss_of(step), timeout_s=COMPILING_S))
        observed(step)
        if step % EVERY == EVERY - 1:
            seen.append(
                run.adapt(step, alignment_of(step), validation_loss=1.0 / (1 + step), timeout_s=COMPILING_S)
            )
        adapted(step)
    return seen


@pytest.mark.parametrize("order", ["before_step", "after_step"])
@pytest.mark.timeout(300)
def test_killed_between_observation_and_update(daemon: Daemon, order: str) -> None:
    """However often the daemon is killed around its updates, every learning rate and update is the same."""
    meta = Meta(order=order, every=EVERY, learning_rate=1e-2)
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        with advisor.run("task", id="undisturbed", meta=meta, fallback=None) as alone:
            undisturbed = train(alone)
            alone.finish(timeout_s=COMPILING_S)  # all of it is stored: its client does not go on
        chance = random.Random(0)  # noqa: S311 # a test's dice

        def kill(step: int) -> None:
            if step % EVERY == EVERY - 1 and chance.random() < 0.2:
                daemon.kill()
                daemon.start()

        run = open_run(advisor, "killed", meta=meta, fallback=None)
        assert train(run, observed=kill, adapted=kill) == undisturbed
        run.finish(timeout_s=COMPILING_S)
        records = [
            [record for chunk in advisor.watch(name) for record in chunk.updates]
            for name in ("undisturbed", "killed")
        ]
        infos = [advisor.get_run(name).meta for name in ("undisturbed", "killed")]
    assert records[0] == records[1]
    assert len(records[0]) == STEPS // EVERY
    assert infos[0] == infos[1]
    moved = [one for one in undisturbed if isinstance(one, Adaptation) and one.log_change]
    assert len(moved) > STEPS // EVERY // 2


@pytest.mark.timeout(300)
def test_what_the_fallback_bridged_is_made_up_for(daemon: Daemon) -> None:
    """Updates made while the daemon is away are made once it is back, each where it belongs."""
    meta = Meta(every=EVERY, learning_rate=1e-2)
    with mlrs.connect(daemon.address, timeout_s=0.5) as advisor:
        undisturbed = train(open_run(advisor, "undisturbed", meta=meta, fallback=None))
        run = open_run(advisor, "away", meta=meta)
        train(run, 0, 20)
        daemon.kill()
        away = train_impatiently(run, 20, 40)
        assert [one.outcome for one in away if isinstance(one, Adaptation)] == [MetaOutcome.FALLBACK] * 5
        lrs = [one for one in away if isinstance(one, float)]
        assert [one.learning_rate for one in away if isinstance(one, Adaptation)] == lrs[EVERY - 1 :: EVERY]
        daemon.start()
        run.finish(timeout_s=COMPILING_S)  # waits until the daemon has everything
        again = open_run(advisor, "away", resume_from=40, fallback=None)
        found = train(again, 40, STEPS)
    assert found == undisturbed[-len(found) :]


def train_impatiently(run: mlrs.Run, first: int, last: int) -> list[float | Adaptation]:
    """Train with the default deadlines."""
    seen: list[float | Adaptation] = []
    for step in range(first, last):
        seen.append(run.next_lr(step, loss_of(step)))
        if step % EVERY == EVERY - 1:
            seen.append(run.adapt(step, alignment_of(step), validation_loss=1.0 / (1 + step)))
    return seen


@pytest.mark.timeout(300)
def test_a_job_that_starts_again(daemon: Daemon) -> None:
    """A job that goes on from a checkpoint makes the rest of its updates as if it had never stopped."""
    meta = Meta(every=EVERY, learning_rate=1e-2)
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        undisturbed = train(open_run(advisor, "undisturbed", meta=meta, fallback=None))
        train(open_run(advisor, "again", meta=meta, fallback=None), 0, 30)
        while advisor.get_run("again").durable_step < 24:
            time.sleep(0.05)
        daemon.kill()
        daemon.start()
        found = train(open_run(advisor, "again", resume_from=24, fallback=None), 24)
    assert found == undisturbed[-len(found) :]


@pytest.mark.timeout(300)
def test_sweeps_and_gradients(daemon: Daemon) -> None:
    """The same alignment moves a run alike, from the loop, by its id, as gradients, and in a sweep."""
    gradient = np.random.default_rng(0).normal(size=300_001).astype(np.float32)
    direction = np.random.default_rng(1).normal(size=300_001).astype(np.float32)
    alignment = float(gradient.astype(np.float64) @ direction.astype(np.float64))
    with mlrs.connect(daemon.address, timeout_s=COMPILING_S) as advisor:
        for name in ("whole", "by-id", "gradients"):
            open_run(advisor, name, meta=True).next_lr(0, 1.0)
        sweep = advisor.sweep(["one", "other"], meta=True, timeout_s=COMPILING_S)
        sweep.next_lrs(0, [1.0, 1.0])
        whole = open_run(advisor, "whole", fallback=None).adapt(0, 3.0)
        by_id = advisor.adapt("by-id", 0, 3.0)
        swept = sweep.adapt(0, [3.0, 3.0])
        sent = advisor.adapt_gradients("gradients", 0, gradient, direction)
    assert whole.applied
    assert whole.log_change
    assert (by_id, *swept) == (whole,) * 3
    assert sent.applied
    assert sent.alignment == pytest.approx(alignment, rel=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_shards_of_a_model(daemon: Daemon, tmp_path: Path) -> None:
    """Two processes that each have a shard of the model are advised as one process that has all of it."""
    (alone,) = fsdp.trained(daemon.address, tmp_path / "alone", 1, runs=2)
    first, second = fsdp.trained(daemon.address, tmp_path / "shared", fsdp.WORLD_SIZE, runs=2)
    assert first == second
    for weights, expected in zip(first, alone, strict=True):
        assert weights == pytest.approx(expected, rel=1e-6)
    with mlrs.connect(daemon.address, timeout_s=COMPILING_S) as advisor:
        for kind, order in fsdp.RUNS[:2]:
            whole, spread = (
                [
                    update
                    for chunk in advisor.watch(f"{kind}-{order}-{size}", follow=False)
                    for update in chunk.updates
                ]
                for size in (1, fsdp.WORLD_SIZE)
            )
            assert [update.step for update in whole] == [update.step for update in spread] == [1, 3]
            for one, other in zip(whole, spread, strict=True):
                assert other.alignment == pytest.approx(one.alignment, rel=1e-6)
                assert other.learning_rate == pytest.approx(one.learning_rate, rel=1e-6)


def test_errors_of_the_daemon(daemon: Daemon) -> None:
    """What the daemon refuses of meta mode raises the exception that says so."""
    with mlrs.connect(daemon.address, timeout_s=COMPILING_S) as advisor:
        run = open_run(advisor, "a", meta=True)
        run.next_lr(0, 1.0)
        run.adapt(0, 1.0)
        with pytest.raises(mlrs.errors.StaleStepError, match="was applied with the alignment"):
            advisor.adapt("a", 0, 2.0)
        with pytest.raises(mlrs.errors.StepAheadError):
            advisor.adapt("a", 1, 2.0)
        with pytest.raises(mlrs.errors.RunNotFoundError):
            advisor.adapt("none", 1, 2.0)
        open_run(advisor, "plain").next_lr(0, 1.0)
        with pytest.raises(mlrs.errors.ConfigMismatchError, match="meta"):
            advisor.adapt_gradients("plain", 0, np.ones(3, np.float32), np.ones(3, np.float32))
