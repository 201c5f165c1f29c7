"""How much two models differ."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mlrs_cli.models import comparing
from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.models.model import Model
from mlrs_core.networks.paper import PaperSpec
from mlrs_server.live.replay import Replay
from tests.support.daemon import write_random_model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A small network of three snapshots."""
    return read_model(write_random_model(tmp_path / "m.safetensors"))[0]


def _with(model: Model, factor: float, snapshot: int, name: str) -> Model:
    """Return a model with one tensor multiplied."""
    snapshots = [dict(weights) for weights in model.snapshots]
    snapshots[snapshot][name] = np.float32(factor) * snapshots[snapshot][name]
    return Model(architecture=model.architecture, snapshots=tuple(snapshots), provenance={})


def test_a_model_is_not_apart_from_itself(model: Model) -> None:
    """Equal models differ in no weight and no learning rate."""
    changes = comparing.weight_changes(model, model)
    assert changes is not None
    assert {value for values in changes.values() for value in values} == {0.0}
    assert [one.logs.max() for one in comparing.compare_rates(model, model)] == [0.0] * 4


def test_a_change_is_found_where_it_is(model: Model) -> None:
    """Where one tensor grew by half in one snapshot, weights and rates differ there and nowhere else."""
    other = _with(model, 1.5, 1, "head.weight")
    changes = comparing.weight_changes(model, other)
    assert changes is not None
    assert changes["head.weight"] == pytest.approx([0, 0.5, 0], rel=1e-6)
    assert all(values == [0.0] * 3 for name, values in changes.items() if name not in {"head.weight", "all"})
    first, middle, last = changes["all"]
    assert (first, last) == (0.0, 0.0)
    assert 0 < middle < 0.5
    for one in comparing.compare_rates(model, other):
        assert 333 <= one.logs.argmax() < 666  # the middle snapshot's part of the horizon
        assert not one.logs[:333].any()


def test_rates_are_those_of_a_run(model: Model) -> None:
    """Learning rates are what a daemon would advise a run of that config."""
    losses = comparing.reference_losses()["noisy"]
    wanted = Replay(model.policy(), comparing.CONFIG).feed(losses)
    assert comparing.rates_of(model, losses).tolist() == wanted.tolist()
    assert Replay(model.policy(), RunConfig()).feed(losses).tolist() != wanted.tolist()


def test_losses_are_as_they_are_called() -> None:
    """The reference losses are finite, and each does what its name says."""
    losses = comparing.reference_losses()
    assert all(np.isfinite(curve).all() and len(curve) == comparing.STEPS for curve in losses.values())
    assert (np.diff(losses["falling"]) < 0).all()
    assert losses["falling"][0] == pytest.approx(math.log(10))
    assert np.ptp(losses["plateau"][500:]) < 0.01
    assert (np.diff(losses["noisy"]) > 0).mean() > 0.3
    assert (losses["jump"] / losses["falling"]).max() == pytest.approx(3.0)


def test_other_shapes_are_not_compared(model: Model, tmp_path: Path) -> None:
    """Models of different architectures have rates to compare, and no weights."""
    other = read_model(write_random_model(tmp_path / "o.safetensors", hidden_size=4))[0]
    assert comparing.weight_changes(model, other) is None
    assert len(comparing.compare_rates(model, other)) == 4
    fewer = Model(architecture=model.architecture, snapshots=model.snapshots[:2], provenance={})
    assert comparing.weight_changes(model, fewer) is None


def test_weights_of_zero_have_no_share() -> None:
    """A tensor that was all zeros changed by nothing or infinitely."""
    spec = PaperSpec(hidden_size=2)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    model = Model(architecture=spec, snapshots=(zeros,), provenance={})
    ones = {**zeros, "head.bias": np.ones(1, np.float32)}
    changes = comparing.weight_changes(model, Model(architecture=spec, snapshots=(ones,), provenance={}))
    assert changes is not None
    assert (changes["head.bias"], changes["head.weight"]) == ([math.inf], [0.0])
