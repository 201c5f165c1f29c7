"""A search is made on the training's own model, and everything is put back."""

from __future__ import annotations

from typing import Any

import pytest

import mlrs
from mlrs.errors import InvalidArgumentError
from tests.support.frameworks import framework

keras = framework("keras")

from mlrs.keras import AdvisedLR  # noqa: E402 # once Keras is known to be there
from tests.support.trainings.keras_training import (  # noqa: E402
    BATCH_SIZE,
    INPUTS,
    TARGETS,
    Watch,
    fit,
    make_model,
    weights_of,
)

LONG = 40
"""Epochs that make a training long enough for a search."""


def make(advisor: mlrs.Advisor, **options: Any) -> AdvisedLR:
    """Return a callback that searches on the training data."""
    return AdvisedLR("keras", advisor=advisor, memory=False, batch_size=BATCH_SIZE, **options)


class Stop(keras.callbacks.Callback):  # type: ignore[misc,name-defined] # has no types
    """Notes the weights before the first batch, and ends the training there."""

    weights: list[str]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note, and end."""
        del batch, logs
        self.weights = weights_of(self.model)
        self.optimizer = [one.numpy().tolist() for one in self.model.optimizer.variables]
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["arrays", "batches"])
def test_search(advisor: mlrs.Advisor, kind: str) -> None:
    """A search finds a learning rate, and leaves weights and optimizer as they were."""
    starts = [slice(first, first + BATCH_SIZE) for first in range(0, len(INPUTS), BATCH_SIZE)]
    data = (INPUTS, TARGETS) if kind == "arrays" else [(INPUTS[one], TARGETS[one]) for one in starts]
    stops = [Stop(), Stop()]
    for stop, options in zip(stops, ({}, {"search_data": data}), strict=True):
        advised = make(advisor, **options)
        with pytest.raises(KeyboardInterrupt):
            fit(make_model(dropout=0.2), advised, stop, epochs=LONG)
    assert advised.found.learning_rate is not None, advised.found
    assert len(advised.found.trials) >= 3
    assert stops[0].weights == stops[1].weights
    assert stops[0].optimizer == stops[1].optimizer


def test_trainings_after_a_search(advisor: mlrs.Advisor) -> None:
    """A training follows what a search found, on the same dropout masks as without a search."""
    advised, watch = make(advisor, search_data=(INPUTS, TARGETS)), Watch()
    fit(make_model(dropout=0.2), advised, watch, epochs=LONG)
    assert max(watch.rates) == pytest.approx(advised.found.learning_rate, rel=0.01)
    plain = make(advisor)
    fit(make_model(dropout=0.2), plain, epochs=1)
    first, second = (
        [loss for chunk in advisor.watch(run.id) for loss in chunk.losses] for run in (advised.run, plain.run)
    )
    assert first[0] == second[0]


def test_short_trainings(advisor: mlrs.Advisor) -> None:
    """A training that is too short for a search says so."""
    advised = make(advisor, search_data=(INPUTS, TARGETS))
    fit(make_model(), advised, epochs=1)
    assert "a search pays from 200 on" in advised.found.why_not


def test_data_that_is_none(advisor: mlrs.Advisor) -> None:
    """What holds no batches is refused, and so are too few of them."""
    with pytest.raises(InvalidArgumentError, match="search_data"):
        fit(make_model(), make(advisor, search_data=3), epochs=LONG)
    with pytest.raises(InvalidArgumentError, match="at least 5 batches"):
        fit(make_model(), make(advisor, search_data=(INPUTS[:20], TARGETS[:20])), epochs=LONG)
