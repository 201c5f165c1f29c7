"""A training that continues from a checkpoint of Keras continues its run, to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs.errors import InvalidArgumentError
from tests.support.daemon import Daemon
from tests.support.frameworks import framework
from tests.support.runs import until_durable

keras = framework("keras")

from mlrs.keras import AdvisedLR  # noqa: E402 # once Keras is known to be there
from tests.support.trainings import keras_training  # noqa: E402
from tests.support.trainings.keras_training import (  # noqa: E402
    BATCHES,
    EPOCHS,
    INPUTS,
    STEPS,
    TARGETS,
    Watch,
    fit,
    make_model,
    weights_of,
)


def make(advisor: mlrs.Advisor, **options: Any) -> AdvisedLR:
    """Return a callback."""
    return AdvisedLR("keras", advisor=advisor, memory=False, **options)


@pytest.fixture
def undisturbed(advisor: mlrs.Advisor) -> tuple[list[float], list[str]]:
    """The learning rates and the last weights of a training that nothing interrupts."""
    model, watch = make_model(), Watch()
    fit(model, make(advisor), watch)
    return watch.rates, weights_of(model)


@pytest.mark.parametrize("is_first", [True, False], ids=["advised-first", "backup-first"])
def test_backup_and_restore(
    advisor: mlrs.Advisor, tmp_path: Path, undisturbed: Any, *, is_first: bool
) -> None:
    """`BackupAndRestore` brings the run back by itself, wherever it stands in the list of callbacks."""

    def train(stop_at: int | None) -> tuple[Any, AdvisedLR, Watch]:
        model, advised, watch = make_model(), make(advisor), Watch(stop_at)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [advised, watch, backup] if is_first else [backup, advised, watch]
        try:
            fit(model, callbacks[0], *callbacks[1:])
        except KeyboardInterrupt:
            assert stop_at is not None
        return model, advised, watch

    _, first, before = train(BATCHES * 2 + 3)
    model, second, after = train(None)
    assert before.rates[: BATCHES * 2] + after.rates == undisturbed[0]
    assert weights_of(model) == undisturbed[1]
    assert second.run.id == first.run.id
    info = advisor.get_run(first.run.id)
    assert (info.next_step, info.status, info.config.horizon) == (STEPS, "finished", STEPS)


@pytest.mark.parametrize("name", ["saved.weights.h5", "saved.keras"])
@pytest.mark.parametrize("is_first", [True, False], ids=["advised-first", "checkpoint-first"])
def test_model_checkpoint(
    advisor: mlrs.Advisor, tmp_path: Path, undisturbed: Any, name: str, *, is_first: bool
) -> None:
    """`load_weights` after `set_model` continues the run, from weights and from whole models."""
    path = tmp_path / name
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, save_weights_only=name.endswith("h5"), save_freq=BATCHES * 2
    )
    first, before = make(advisor), Watch(BATCHES * 2)
    callbacks = [first, checkpoint, before] if is_first else [checkpoint, first, before]
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), callbacks[0], *callbacks[1:])
    model, second, after = make_model(), make(advisor), Watch()
    second.set_model(model)
    model.load_weights(path)
    fit(model, second, after, initial_epoch=2)
    assert before.rates + after.rates == undisturbed[0]
    assert weights_of(model) == undisturbed[1]
    assert second.run.id == first.run.id


def test_between_two_batches_of_an_update(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A checkpoint in the middle of an update has the losses of its first batches."""

    def train(path: Path | None, *, stop: bool) -> tuple[Any, list[float]]:
        model = make_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))
        advised, watch = make(advisor), Watch(BATCHES if stop else None)
        advised.set_model(model)
        if path is not None and path.exists():
            model.load_weights(path)
        saver = keras.callbacks.ModelCheckpoint(tmp_path / "w.weights.h5", save_weights_only=True)
        first = 1 if path is not None and path.exists() else 0
        try:
            fit(model, advised, saver, watch, initial_epoch=first)
        except KeyboardInterrupt:
            model.save_weights(tmp_path / "middle.weights.h5")
        return model, watch.rates

    whole, rates = train(None, stop=False)
    _, before = train(None, stop=True)
    model, after = train(tmp_path / "middle.weights.h5", stop=False)
    assert before + after == rates
    assert weights_of(model) == weights_of(whole)


def test_processes_and_a_killed_daemon(tmp_path: Path) -> None:
    """Two processes and a daemon killed between them train as one process and one daemon do."""

    def train(address: str, folder: str, *stop_at: int) -> tuple[list[str], str]:
        command = [
            sys.executable,
            keras_training.__file__,
            address,
            str(tmp_path / folder),
            *map(str, stop_at),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert ran.returncode == 0, ran.stderr
        rates, _, weights = ran.stdout.partition("|")
        return rates.split(), weights

    with Daemon(tmp_path / "one") as daemon:
        rates, weights = train(daemon.address, "one-backup")
    with Daemon(tmp_path / "two") as daemon:
        first, _ = train(daemon.address, "two-backup", BATCHES + 2)
        until_durable(daemon, BATCHES)  # nobody is left to send the losses again
        daemon.kill()
        daemon.start()
        second, last = train(daemon.address, "two-backup")
    assert len(rates) == BATCHES * EPOCHS
    assert first[:BATCHES] + second == rates
    assert last == weights


def test_weights_of_other_trainings(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Weights that were saved without the callback, or after a training, begin a new run."""
    model = make_model()
    advised = make(advisor)
    fit(model, advised, epochs=1)
    model.save(tmp_path / "model.keras")
    assert weights_of(keras.saving.load_model(tmp_path / "model.keras")) == weights_of(model)
    plain = make_model()
    plain.fit(INPUTS, TARGETS, verbose=0)
    plain.save_weights(tmp_path / "plain.weights.h5")
    for name in ("model.keras", "plain.weights.h5"):
        other, again = make_model(), make(advisor)
        again.set_model(other)
        other.load_weights(tmp_path / name)
        fit(other, again, epochs=1)
        assert again.run.id != advised.run.id
        assert advisor.get_run(again.run.id).next_step == BATCHES


def test_weights_that_are_put_back(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A callback that loads a checkpoint within the training has the run go back to it."""

    class Back(keras.callbacks.Callback):  # type: ignore[misc,name-defined] # has no types
        """Saves at the third batch, and goes back there after the fourth."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """Save, or go back."""
            del logs
            if batch == 2:
                self.model.save_weights(tmp_path / "third.weights.h5")
            elif batch == 3:
                self.model.load_weights(tmp_path / "third.weights.h5")

    advised = make(advisor)
    fit(make_model(), advised, Back(), epochs=1)
    assert advisor.get_run(advised.run.id).next_step == BATCHES - 1


def test_states_that_are_wrong(advisor: mlrs.Advisor) -> None:
    """What is no state of a run is refused."""
    with pytest.raises(InvalidArgumentError, match="state lacks"):
        make(advisor).load_state({"epoch": 3})


def test_without_a_daemon(tmp_path: Path) -> None:
    """Where no daemon answers, the training goes on with the optimizer's own learning rate."""
    nowhere = f"unix:{tmp_path}/nowhere.sock"
    with mlrs.connect(nowhere, timeout_s=0.2, unsent_dir=tmp_path) as advisor:
        watch = Watch()
        fit(make_model(), make(advisor), watch, epochs=1)
        assert watch.rates == [0.0, *[pytest.approx(0.01)] * (BATCHES - 1)]
