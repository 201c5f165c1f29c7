"""A drift model holds its constants and the version of its feature set; versions are served side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_core.models.checkpoint import digest_of, dump_model, parse_model
from mlrs_core.models.model import Model
from mlrs_core.networks import Weights, architecture_from_json
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.drift.constants import BOUNDS, DriftConstants
from mlrs_core.networks.drift.reference import DriftReference
from mlrs_core.networks.drift.versions import FEATURE_SETS, FeatureSet
from mlrs_core.networks.serving import DRIFT_KERNELS
from mlrs_core.policy import Floats, Networks, Rows, RunColumns, RunTable, Signals, States, Steps
from mlrs_core.schedules.base import default_lrs
from tests.core.networks.families import OTHER_CONSTANTS, random_weights
from tests.core.networks.test_drift import columns_in_torch
from tests.core.runs import Runs

CONFIGS = [
    RunConfig(),
    RunConfig(horizon=150, num_classes=10),
    RunConfig(horizon=200, optimizer=Optimizer.MOMENTUM, initial_lr=1e3),
    RunConfig(horizon=900, optimizer=Optimizer.MOMENTUM, momentum=0.9999),
    RunConfig(horizon=120, optimizer=Optimizer.ADAM, initial_lr=1e-9),
]
"""Runs of every kind."""
NAMES = [each.name for each in fields(DriftConstants)]


def losses_of(seed: int, scale: float = 1.0) -> Floats:
    """Return 300 losses of the runs, (300, n), with jumps and negative ones."""
    rng = np.random.default_rng(seed)
    losses = rng.exponential(1.0, (300, len(CONFIGS))) * rng.choice([1.0, 1.0, 1.0, 30.0, -1.0], (300, 1))
    losses[0] = np.abs(losses[0]) * [1.0, 1.0, -1.0, 1.0, 1.0]
    scaled: Floats = losses * scale * np.array([1e-12, 1.0, 1.0, 1e2, 1e12])
    return scaled


def rates_of(model: Model) -> Floats:
    """Return what a model advises the runs, (300, n)."""
    runs = Runs(model.policy(), CONFIGS)
    return np.array([runs.advise(step, row) for step, row in enumerate(losses_of(1))])


def model_of(constants: DriftConstants = DriftConstants(), gain: float = 1.5) -> Model:  # noqa: B008 -- frozen
    """Return a model whose learning rates reach far up and down."""
    spec = DriftSpec(hidden_size=4, constants=constants)
    weights = random_weights(spec, np.random.default_rng(2), gain=gain)
    return Model(architecture=spec, snapshots=(weights,), provenance={})


def read_again(model: Model) -> Model:
    """Return a model through its file."""
    return parse_model(dump_model(model))


def fields_of(spec: DriftSpec) -> dict[str, Any]:
    """Return what a file says of an architecture, as JSON gives it back."""
    parameters: dict[str, Any] = json.loads(json.dumps(spec.to_json()))
    return parameters


# ----------------------------------------------------------------------------------- the constants


def test_a_file_of_the_first_constants_does_not_name_them() -> None:
    """A spec of version 1 with the first constants is written as it was before files could name either."""
    spec = DriftSpec(hidden_size=7, inputs="loss")
    assert spec.to_json() == {"kind": "drift", "hidden_size": 7, "inputs": "loss"}
    assert architecture_from_json(spec.to_json()) == spec
    explicit = {**fields_of(spec), "features": 1, "constants": asdict(DriftConstants())}
    assert architecture_from_json(explicit) == spec


def test_other_constants_are_all_named() -> None:
    """A spec with any other constant is written with its version and every constant, and read back equal."""
    spec = DriftSpec(hidden_size=7, constants=replace(DriftConstants(), rise=0.25))
    said = fields_of(spec)
    assert said["features"] == 1
    assert said["constants"].keys() == set(NAMES)
    assert architecture_from_json(said) == spec


@pytest.mark.parametrize("name", NAMES)
def test_advice_depends_on_each_constant_of_the_file(name: str) -> None:
    """A model with one other constant gives other advice, through its file too, under another digest."""
    first = model_of()
    other = model_of(replace(DriftConstants(), **{name: getattr(OTHER_CONSTANTS, name)}))
    assert digest_of(dump_model(other)) != digest_of(dump_model(first))
    rates = rates_of(read_again(other))
    assert rates.tobytes() == rates_of(other).tobytes()
    assert (rates != rates_of(first)).any()


def constants() -> st.SearchStrategy[DriftConstants]:
    """Return constants from all over their bounds, often at the very ends."""

    def values(name: str) -> st.SearchStrategy[Any]:
        low, high = BOUNDS[name]
        default = getattr(DriftConstants(), name)
        if isinstance(default, int):
            return st.integers(int(low), int(high)) | st.integers(1, 20)
        one = st.floats(low, high) | st.sampled_from([low, high])
        if not isinstance(default, tuple):
            return one | st.just(default)
        return st.tuples(*[one] * len(default))

    def ordered(found: dict[str, Any]) -> DriftConstants:
        for low, high in (("min_ref", "max_ref"), ("min_drift", "max_drift")):
            found[low], found[high] = sorted((found[low], found[high]))
        return DriftConstants(**found)

    return st.fixed_dictionaries({name: values(name) for name in NAMES}).map(ordered)


@settings(max_examples=60, deadline=None)
@given(constants=constants(), seed=st.integers(0, 99), gain=st.sampled_from([1.0, 1e9]))
def test_no_constants_make_advice_that_is_not_finite(
    constants: DriftConstants, seed: int, gain: float
) -> None:
    """Under any constants and weights that a file may hold, every learning rate is finite and positive."""
    runs = Runs(model_of(constants, gain).policy(), CONFIGS)
    rates = [runs.advise(step, row) for step, row in enumerate(losses_of(seed, 1e290))]
    assert np.isfinite(rates).all()
    assert (np.array(rates) > 0).all()
    assert np.isfinite(runs.states).all()


def test_kernel_agrees_with_oracle_under_other_constants() -> None:
    """Over 300 steps of all kinds of runs the kernel stays within 1e-6 of the torch module."""
    model, columns = model_of(OTHER_CONSTANTS), RunColumns.of(CONFIGS)
    assert isinstance(model.architecture, DriftSpec)
    oracle, runs = DriftReference(model.architecture), columns_in_torch(columns)
    wide = {name: torch.from_numpy(weight).double() for name, weight in model.snapshots[0].items()}
    state, rates = oracle.init_state(len(CONFIGS)), rates_of(model)
    for step, row in enumerate(losses_of(1)):
        expected, state = oracle.step(wide, state, torch.from_numpy(row), step, runs)
        np.testing.assert_allclose(rates[step], expected.numpy(), rtol=1e-6, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"constants": {"rise": 0.3}}, r"constants: missing: \['default_adam_lr', .*; unknown: none"),
        ({"constants": {**asdict(DriftConstants()), "climb": 1}}, r"missing: none; unknown: \['climb'\]"),
        ({"constants": 7}, "constants: must be DriftConstants in feature version 1"),
        ({"constants": None}, "constants: must be DriftConstants in feature version 1"),
        *(
            ({"constants": {**asdict(DriftConstants()), name: value}}, rf"constants\.{name}: must be")
            for name, value in (
                ("rise", -0.1),
                ("rise", float("nan")),
                ("rise", "0.2"),
                ("rise", True),
                ("fall", float("inf")),
                ("ticks", 0),
                ("ticks", 2.5),
                ("max_drift", 51.0),
                ("min_ref", 1e39),
                ("floor", 0.0),
                ("soft_steps", [0.5] * 8),
                ("soft_steps", 0.5),
                ("soft_steps", ["x"] * 9),
                ("time_constants", [0.0, 80.0]),
            )
        ),
        (
            {"constants": {**asdict(DriftConstants()), "max_drift": -20.0}},
            r"constants\.min_drift: must be at most max_drift",
        ),
    ],
)
def test_bad_constants_are_named(changed: dict[str, Any], said: str) -> None:
    """A constant that is missing, unknown, of another type or out of range is refused by its name."""
    with pytest.raises(ModelFileError, match=said):
        architecture_from_json({"kind": "drift", "hidden_size": 4, "features": 1, **changed})


def test_whole_numbers_are_read_as_the_numbers_that_they_are() -> None:
    """A file that says 1 where the constant is 1.0 is of an equal model, so its digest is the same again."""
    one, other = (
        DriftSpec(constants=replace(DriftConstants(), reach=value, soft_steps=positions))
        for value, positions in ((2.0, (1.0,) * 9), (2, [1] * 9))
    )
    assert one == other
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())


# ------------------------------------------------------------------------------------- the version


@pytest.mark.parametrize("version", [2, 0, -1, "1", 1.0, True, None, [1]])
def test_an_unknown_version_is_refused(version: object) -> None:
    """A feature set of an unknown version is refused with its number and what this version of mlrs knows."""
    with pytest.raises(ModelFileError, match=r"features: version .* is unknown; .* mlrs knows: 1$"):
        architecture_from_json({"kind": "drift", "features": version})


@dataclass(frozen=True, kw_only=True)
class SecondConstants:
    """The numbers of the made-up version."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        """Check it."""
        if not 0 <= self.slope <= 1:
            raise InvalidFieldError("constants.slope", "must be 0 to 1")


class SecondKernel:
    """`Policy` of the made-up version: a straight line, as steep as its constant and the weights say."""

    state_size, network_size = 1, 0

    def __init__(self, spec: DriftSpec, snapshots: Sequence[Weights]) -> None:
        """Take the slope and one weight."""
        self._slope, self._weight = spec.constants.slope, float(snapshots[0]["head.bias"][0])  # type: ignore[attr-defined]

    def init_state(self, n: int) -> States:
        """Return the states of n runs."""
        return np.zeros((n, 1), np.float32)

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        signals: Signals,
        lrs: Floats,
    ) -> None:
        """Advance runs."""
        del networks, table, losses, signals
        states[rows] += 1
        lrs[:] = default_lrs(RunColumns.of([RunConfig()]))[0] * np.exp(-self._slope * self._weight * steps)


SECOND = FeatureSet(constants=SecondConstants, features=(1, 1, 0), extras=1)


def second_model(slope: float) -> Model:
    """Return a model of the made-up version."""
    spec = DriftSpec(hidden_size=3, features=2, constants=SecondConstants(slope=slope))  # type: ignore[arg-type]
    ones = {name: np.ones(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    return Model(architecture=spec, snapshots=(ones,), provenance={})


def test_a_second_version_is_served_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entered in the registry, version 2 has shapes and advice of its own; version 1 keeps bits and bytes."""
    first = model_of()
    bits, data = rates_of(first).tobytes(), dump_model(first)
    monkeypatch.setitem(FEATURE_SETS, 2, SECOND)
    monkeypatch.setitem(DRIFT_KERNELS, 2, SecondKernel)
    model = second_model(0.02)
    assert model.architecture.to_json() == {
        "kind": "drift",
        "hidden_size": 3,
        "inputs": "all",
        "features": 2,
        "constants": {"slope": 0.02},
    }
    assert model.architecture.weight_shapes()["cell.weight"] == (12, 2 + 3)
    runs = Runs(read_again(model).policy(), [RunConfig()])
    rates = [float(runs.advise(step, [1.0])[0]) for step in range(30)]
    np.testing.assert_allclose(rates, 0.1 * np.exp(-0.02 * np.arange(30)))
    assert digest_of(dump_model(second_model(0.03))) != digest_of(dump_model(model))
    assert dump_model(parse_model(data)) == data
    assert rates_of(parse_model(data)).tobytes() == bits


def test_versions_have_constants_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants of one version are refused in another, and a later version must name its constants."""
    monkeypatch.setitem(FEATURE_SETS, 2, SECOND)
    with pytest.raises(InvalidFieldError, match="constants: must be SecondConstants in feature version 2"):
        DriftSpec(features=2)
    for given_, said in (
        ({}, r"missing: \['slope'\]"),
        ({"rise": 1, "slope": 0}, r"unknown: \['rise'\]"),
    ):
        with pytest.raises(ModelFileError, match=said):
            architecture_from_json({"kind": "drift", "features": 2, "constants": given_})
    with pytest.raises(ModelFileError, match="version 3 is unknown; this version of mlrs knows: 1, 2"):
        architecture_from_json({"kind": "drift", "features": 3})
