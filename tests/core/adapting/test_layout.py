"""Weights by name out of the vector that a kernel reads."""

from __future__ import annotations

import numpy as np
import pytest

from mlrs_core.config import MetaConfig
from mlrs_core.models.model import Model
from mlrs_core.networks import Architecture
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.paper import PaperSpec

SPECS = [
    PaperSpec(hidden_size=6),
    PaperSpec(hidden_size=4, num_layers=3, gate_layout="ifog"),
    DriftSpec(hidden_size=5),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_unpacking_is_the_inverse_of_packing(spec: Architecture) -> None:
    """The network of a run before its first update holds the model's weights, to the bit, by name."""
    rng = np.random.default_rng(3)
    snapshots = tuple(
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.weight_shapes().items()}
        for _ in range(3)
    )
    policy = Model(architecture=spec, snapshots=snapshots, provenance={}).adaptive_policy(MetaConfig())
    found = policy.weights_of(policy.first_network())
    assert len(found) == len(snapshots)
    for weights, wanted in zip(found, snapshots, strict=True):
        assert weights.keys() == wanted.keys()
        for name, array in wanted.items():
            assert weights[name].dtype == np.float32
            assert weights[name].shape == array.shape
            assert weights[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_packing_is_the_inverse_of_unpacking(spec: Architecture) -> None:
    """A model made of a network's weights begins with the same network: no entry is lost or moved."""
    zeros = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    policy = Model(architecture=spec, snapshots=(zeros, zeros), provenance={}).adaptive_policy(MetaConfig())
    size = policy.network_size // 4
    network = np.zeros(policy.network_size, np.float32)
    network[:size] = np.arange(size)
    model = Model(architecture=spec, snapshots=policy.weights_of(network), provenance={})
    assert (model.adaptive_policy(MetaConfig()).first_network()[:size] == np.arange(size)).all()
