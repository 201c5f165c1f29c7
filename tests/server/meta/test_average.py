"""The mean of the adapted weights of runs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from mlrs_core.config import MetaConfig
from mlrs_core.models.checkpoint import dump_model, parse_model
from mlrs_core.models.model import Model
from mlrs_core.networks.paper import PaperSpec
from mlrs_server.meta.average import MAX_NAMED, WeightAverage


@pytest.fixture
def parent() -> Model:
    """A small network of two snapshots."""
    rng = np.random.default_rng(2)
    spec = PaperSpec(hidden_size=4)
    snapshots = tuple(
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.weight_shapes().items()}
        for _ in range(2)
    )
    return Model(architecture=spec, snapshots=snapshots, provenance={"method": "random"})


def _average(parent: Model) -> WeightAverage:
    return WeightAverage(parent.adaptive_policy(MetaConfig()))


def _weights(parent: Model) -> npt.NDArray[np.float32]:
    policy = parent.adaptive_policy(MetaConfig())
    return policy.first_network()[: policy.network_size // 4]


def test_the_mean_is_of_every_weight(parent: Model) -> None:
    """Each weight of each snapshot moves by the mean of the runs' differences, a run a voice."""
    rng, average = np.random.default_rng(3), _average(parent)
    policy = parent.adaptive_policy(MetaConfig())
    moved = [_weights(parent) + rng.normal(0, 0.1, average.size).astype(np.float32) for _ in range(5)]
    for number, weights in enumerate(moved):
        average.add(f"run-{number}", 10**number, 7, weights)
    new = average.model(parent, "m@1", {})
    network = np.zeros(policy.network_size, np.float32)
    named = []
    for weights in moved:
        network[: average.size] = weights
        named.append(policy.weights_of(network))
    for snapshot, before in enumerate(parent.snapshots):
        for name, array in before.items():
            runs = np.stack([run[snapshot][name].astype(np.float64) for run in named])
            wanted = array + (runs - array).mean(axis=0)
            np.testing.assert_allclose(new.snapshots[snapshot][name], wanted, rtol=1e-7, atol=1e-8)


def test_relative_changes_are_of_norms(parent: Model) -> None:
    """Changes are told as the length of the difference over the length of the model's weights."""
    average, weights = _average(parent), _weights(parent)
    average.add("out", 3, 9, 1.5 * weights)
    average.add("back", 4, 9, 0.75 * weights)
    assert [run.relative_change for run in average.named] == pytest.approx([0.5, 0.25], rel=1e-6)
    assert average.relative_change() == pytest.approx(0.125, rel=1e-6)
    assert (average.count, average.updates) == (2, 7)


def test_a_run_that_learnt_nothing_dilutes_nothing(parent: Model) -> None:
    """Weights that are the model's to the bit are no voice."""
    average, weights = _average(parent), _weights(parent)
    average.add("idle", 9, 100, weights.copy())
    assert average.count == 0
    average.add("keen", 1, 3, 2 * weights)
    assert (average.count, average.relative_change()) == (1, pytest.approx(1.0))


def test_provenance_names_the_first_thousand(parent: Model) -> None:
    """The file says whose mean it is, with a count of all runs, and stays small enough to be read again."""
    average, weights = _average(parent), _weights(parent)
    for number in range(MAX_NAMED + 50):
        average.add(f"{number:0256d}", 2, 5, weights + np.float32(1e-3))
    model = average.model(parent, "m@1", {"prefix": "", "min_updates": 1})
    provenance = parse_model(dump_model(model)).provenance
    assert (provenance["method"], provenance["parent"]) == ("pooled", "m@1")
    assert (provenance["run_count"], provenance["updates"]) == (MAX_NAMED + 50, 2 * (MAX_NAMED + 50))
    assert len(provenance["runs"]) == len(average.named) == MAX_NAMED
    assert provenance["runs"][0] == {"run_id": f"{0:0256d}", "updates": 2, "next_step": 5}


def test_huge_weights_stay_weights(parent: Model) -> None:
    """Runs at the limit of weights give a model that is within it."""
    average = _average(parent)
    for number in range(3):
        average.add(str(number), 1, 1, np.full(average.size, 1e9, np.float32))
    model = average.model(parent, "m@1", {})
    assert {float(array.max()) for weights in model.snapshots for array in weights.values()} == {1e9}


def test_a_model_of_zeros_has_no_relative_change(parent: Model) -> None:
    """Where there is nothing to compare with, a change is infinite, and no warning."""
    zeros = {name: np.zeros_like(array) for name, array in parent.snapshots[0].items()}
    average = _average(Model(architecture=parent.architecture, snapshots=(zeros,), provenance={}))
    average.add("run", 1, 1, np.ones(average.size, np.float32))
    assert average.relative_change() == math.inf
