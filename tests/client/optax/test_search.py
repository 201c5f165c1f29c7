"""A search makes its trials with the training's own step, and leaves its state as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs.errors import InvalidArgumentError, UsageError
from tests.support.frameworks import framework

jax = framework("jax")
optax = framework("optax")

from mlrs.optax import AdvisedLR  # noqa: E402 # once JAX is known to be there
from tests.support.trainings.optax_training import BATCHES, Training  # noqa: E402

LONG = 200


def start(advisor: mlrs.Advisor, **options: Any) -> Training:
    """Return a training that is long enough for a search."""
    schedule = AdvisedLR("optax-search", advisor=advisor, explore=False, horizon=LONG, **options)
    return Training(schedule, factory=optax.sgd)


def test_search(advisor: mlrs.Advisor) -> None:
    """A search finds a learning rate by trials of the compiled step, which is traced once and donates."""
    training = start(advisor, memory=False)
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(training.state)]
    found = training.learning_rate.search(training.compiled, training.state, BATCHES)
    assert found.learning_rate is not None, found
    assert len(found.trials) >= 3
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(training.state)] == before
    training.train(0, 20)
    assert max(training.rates) == pytest.approx(found.learning_rate, rel=0.2)
    assert training.learning_rate.traces == 1
    again = training.learning_rate.search(training.compiled, training.state, BATCHES)
    assert "the run is at step 20" in again.why_not


def test_search_with_accumulation(advisor: mlrs.Advisor) -> None:
    """With micro-batches, each update of a trial makes all of its calls."""
    training = start(advisor, memory=False, accumulation_steps=2)
    found = training.learning_rate.search(training.compiled, training.state, BATCHES)
    assert found.learning_rate is not None, found


def test_a_resumed_training_makes_no_search(advisor: mlrs.Advisor, tmp_path: Any) -> None:
    """A script that begins again from a checkpoint calls `search` again, and nothing is searched."""
    first = start(advisor, memory=False)
    first.train(0, 5)
    first.save(tmp_path / "state.npz")
    second = start(advisor, memory=False)
    second.load(tmp_path / "state.npz")
    found = second.learning_rate.search(second.compiled, second.state, BATCHES)
    assert "the run is at step 5" in found.why_not
    assert second.learning_rate.run.id == first.learning_rate.run.id


def test_wrong_steps(advisor: mlrs.Advisor) -> None:
    """A step without the schedule, a state without it, and too few batches are errors that say so."""
    training = start(advisor, memory=False)
    search = training.learning_rate.search
    with pytest.raises(UsageError, match="asked for no learning rate"):
        search(lambda state, _: (state, None), training.state, BATCHES)
    with pytest.raises(UsageError, match="pass \\(params, opt_state\\)"):
        search(training.compiled, training.state[0], BATCHES)
    with pytest.raises(InvalidArgumentError, match="at least 5 batches"):
        search(training.compiled, training.state, BATCHES[:4])


def test_an_exception_in_a_trial(advisor: mlrs.Advisor) -> None:
    """Batches that end with an error leave a training that begins as if there had been no search."""

    def failing() -> Iterator[Any]:
        yield from BATCHES[:8]
        raise OSError("the disk is gone")

    training = start(advisor, memory=False)
    with pytest.raises(OSError, match="the disk is gone"):
        training.learning_rate.search(training.compiled, training.state, failing())
    training.train(0, 3)
    assert training.learning_rate.run.next_step == 3
