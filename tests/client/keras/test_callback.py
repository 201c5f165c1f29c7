"""The callback gives each batch the advice for the exact loss of the batch before."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from tests.support.frameworks import framework

keras = framework("keras")

from mlrs.keras import AdvisedLR  # noqa: E402 # once Keras is known to be there
from tests.support.trainings.keras_training import (  # noqa: E402
    BATCH_SIZE,
    BATCHES,
    EPOCHS,
    INPUTS,
    STEPS,
    TARGETS,
    Watch,
    fit,
    make_model,
)


def make(advisor: mlrs.Advisor, **options: Any) -> AdvisedLR:
    """Return a callback."""
    return AdvisedLR("keras", advisor=advisor, memory=False, **options)


def recorded(advisor: mlrs.Advisor, run: mlrs.Run) -> tuple[list[float], list[float]]:
    """Return the losses and the learning rates that the daemon has of a run."""
    chunks = [*advisor.watch(run.id)]
    losses = [float(loss) for chunk in chunks for loss in chunk.losses]
    return losses, [float(rate) for chunk in chunks for rate in chunk.learning_rates]


def by_hand(rates: list[float]) -> tuple[list[float], Any]:
    """Return the losses of a linear model trained by NumPy with these learning rates, and its weights."""
    weights, bias, losses = np.full((3, 1), 0.5), 0.0, []
    for step, rate in enumerate(rates):
        chosen = slice(step % BATCHES * BATCH_SIZE, (step % BATCHES + 1) * BATCH_SIZE)
        inputs, errors = INPUTS[chosen], INPUTS[chosen] @ weights + bias - TARGETS[chosen]
        losses.append(float((errors**2).mean() + 0.1 * (weights**2).sum()))
        weights = weights - rate * (2 * inputs.T @ errors / BATCH_SIZE + 0.2 * weights)
        bias -= rate * 2 * errors.mean()
    return losses, weights


def test_exact_losses_one_batch_late(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """The daemon gets the loss of each batch, with its penalty; each advice is used for the next batch."""
    dense = keras.layers.Dense(
        1, kernel_initializer=keras.initializers.Constant(0.5), kernel_regularizer=keras.regularizers.L2(0.1)
    )
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile(keras.optimizers.SGD(0.05), loss="mse", metrics=["mae"])
    advised, watch = make(advisor), Watch()
    history = fit(model, advised, watch, keras.callbacks.CSVLogger(tmp_path / "log.csv")).history
    losses, rates = recorded(advisor, advised.run)
    assert watch.rates == [0.0, *np.float32(rates[:-1]).tolist()]
    expected, weights = by_hand(watch.rates)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert keras.ops.convert_to_numpy(dense.kernel.value) == pytest.approx(weights, rel=1e-4)
    assert len(set(rates)) > STEPS // 2
    assert watch.logged == [0.0, *rates[:-1]]
    assert history["learning_rate"] == watch.logged[BATCHES - 1 :: BATCHES]
    with (tmp_path / "log.csv").open() as log:
        assert [float(row["learning_rate"]) for row in csv.DictReader(log)] == history["learning_rate"]
    assert set(history) == {"loss", "mae", "learning_rate"}
    assert history["loss"] != pytest.approx(losses[BATCHES - 1 :: BATCHES])


def test_the_run_is_told(advisor: mlrs.Advisor) -> None:
    """Steps, optimizer and validation losses reach the run, which is finished at the end."""
    advised = make(advisor)
    model = make_model(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True))
    history = fit(model, advised, validation_data=(INPUTS, TARGETS)).history
    info = advisor.get_run(advised.run.id)
    assert (info.status, info.next_step) == ("finished", STEPS)
    assert (info.config.horizon, info.config.optimizer, info.config.momentum) == (STEPS, "nesterov", 0.9)
    told = [record.loss for chunk in advisor.watch(advised.run.id) for record in chunk.validations]
    assert told == history["val_loss"][: len(told)]
    assert len(told) >= EPOCHS - 1
    losses, _ = recorded(advisor, advised.run)
    assert len(losses) == STEPS


@pytest.mark.parametrize(
    ("optimizer", "kind", "momentum"),
    [
        (lambda: keras.optimizers.SGD(0.1), "sgd", 0.0),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.5), "momentum", 0.5),
        (lambda: keras.optimizers.Adam(0.1, beta_1=0.8), "adam", 0.8),
        (lambda: keras.optimizers.Adam(0.1, weight_decay=0.1), "adamw", 0.9),
        (lambda: keras.optimizers.AdamW(0.1), "adamw", 0.9),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.1)), "adamw", 0.9),
        (lambda: keras.optimizers.RMSprop(0.1), "other", None),
    ],
)
def test_optimizers(advisor: mlrs.Advisor, optimizer: Any, kind: str, momentum: float | None) -> None:
    """The kinds of optimizers are recognized, and each follows the advice."""
    advised, watch = make(advisor), Watch()
    fit(make_model(optimizer()), advised, watch, epochs=1)
    assert (advised.run.config.optimizer, advised.run.config.momentum) == (kind, momentum)
    _, rates = recorded(advisor, advised.run)
    assert watch.rates == [0.0, *np.float32(rates[:-1]).tolist()]


def test_gradient_accumulation(advisor: mlrs.Advisor) -> None:
    """A step is an update of several batches, and its loss their mean."""
    plain, accumulated = make(advisor), make(advisor)
    fit(
        make_model(keras.optimizers.SGD(0.1)), plain, epochs=1, batch_size=4
    )  # its first batch leaves the weights as they are
    model = make_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    watch = Watch()
    fit(model, accumulated, watch, epochs=1, batch_size=4)
    losses, rates = recorded(advisor, accumulated.run)
    assert len(losses) == BATCHES
    assert accumulated.run.config.horizon == BATCHES
    assert losses[0] == pytest.approx(np.mean(recorded(advisor, plain.run)[0][:2]), rel=1e-6)
    assert watch.rates[:4] == [0.0, 0.0, *np.float32([rates[0]] * 2).tolist()]


def test_schedules_are_refused(advisor: mlrs.Advisor) -> None:
    """An optimizer with a schedule of its own is an error that says what to do instead."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    with pytest.raises(InvalidArgumentError, match="a number"):
        fit(make_model(keras.optimizers.SGD(schedule)), make(advisor))


def test_many_steps_in_one_call_are_refused(advisor: mlrs.Advisor) -> None:
    """With several steps in an execution, the losses cannot be had: an error says so."""
    if keras.backend.backend() == "torch":
        pytest.skip("Keras itself refuses it on this backend")
    with pytest.raises(UsageError, match="steps_per_execution=1"):
        fit(make_model(steps_per_execution=2), make(advisor))


def test_a_train_step_without_compute_loss(advisor: mlrs.Advisor) -> None:
    """A model whose train_step computes no loss that can be had is an error at its first batch."""

    class Silent(keras.Sequential):  # type: ignore[misc,name-defined] # has no types
        """A model that trains nothing."""

        def train_step(self, *arguments: Any) -> Any:
            """Return no logs."""
            state = (arguments[0],) if len(arguments) == 2 else ()
            return ({}, *state) if state else {}

    model = Silent([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    with pytest.raises(UsageError, match="compute_loss"):
        fit(model, make(advisor))


def test_trainings_in_a_row(advisor: mlrs.Advisor) -> None:
    """With the same model and callback, each `fit` is a run; a `fit` without it is undisturbed."""
    model, advised = make_model(), make(advisor)
    fit(model, advised, epochs=1)
    first = advised.run
    model.fit(INPUTS, TARGETS, verbose=0)
    model.evaluate(INPUTS, TARGETS, verbose=0)
    fit(model, advised, epochs=1)
    assert advised.run.id != first.id
    assert [len(recorded(advisor, run)[0]) for run in (first, advised.run)] == [BATCHES, BATCHES]
    fit(model, make(advisor), epochs=1)  # another callback takes its place


def test_evaluations_between_batches(advisor: mlrs.Advisor) -> None:
    """A callback that evaluates the model between batches changes no loss that is observed."""

    class Evaluate(keras.callbacks.Callback):  # type: ignore[misc,name-defined] # has no types
        """Evaluates after each batch."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """Evaluate."""
            del batch, logs
            self.model.evaluate(INPUTS[:4], TARGETS[:4], verbose=0)

    plain, evaluated = make(advisor), make(advisor)
    fit(make_model(), plain, epochs=2)
    fit(make_model(), evaluated, Evaluate(), epochs=2)
    assert recorded(advisor, evaluated.run) == recorded(advisor, plain.run)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras distributes on JAX only")
def test_several_devices(advisor: mlrs.Advisor) -> None:
    """With the batches split over devices, the losses are those of whole batches."""
    alone, split = make(advisor), make(advisor)
    fit(make_model(), alone, epochs=1)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        fit(make_model(), split, epochs=1)
    finally:
        keras.distribution.set_distribution(None)
    assert recorded(advisor, split.run)[0] == pytest.approx(recorded(advisor, alone.run)[0], rel=1e-4)
