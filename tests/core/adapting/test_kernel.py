"""Updates of runs that go on learning, and their bounds, for every architecture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.adapting import AdaptivePolicy, MetaOutcome
from mlrs_core.advise import step as step_of
from mlrs_core.config import MetaOrder, RunConfig
from mlrs_core.errors import InvalidFieldError
from mlrs_core.models.model import Model
from mlrs_core.networks import Architecture
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.policy import RunColumns
from tests.core.adapting.following import HORIZON, MOVED, adapt
from tests.core.adapting.oracles import adaptive, ours
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs


def with_weights(model: Model, policy: AdaptivePolicy, network: np.ndarray) -> Model:
    """Return a model with the weights of a run's network."""
    return Model(
        architecture=model.architecture,
        snapshots=policy.weights_of(network),
        provenance={},
    )


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_the_newest_step_is_taken_again(spec: Architecture) -> None:
    """Before the step, rate and state are what the loss gets under the new weights; after it, they stand."""
    model, rng, again = random_model(spec, 1), np.random.default_rng(5), 0
    before_step = Runs(adaptive(model, learning_rate=0.01), [HORIZON])
    after_step = Runs(adaptive(model, learning_rate=0.01, order=MetaOrder.AFTER_STEP), [HORIZON])
    size, columns = model.policy().state_size, RunColumns.of([HORIZON])
    for step in range(50):
        loss, alignment = [float(2 * np.exp(rng.normal(0, 0.2) - step / 30))], float(rng.normal())
        before = before_step.states[:, :size].copy()
        before_step.advise(step, loss)
        done = adapt(before_step, 0, step, alignment)
        if done.outcome in MOVED:
            assert not math.isnan(done.lr) or isinstance(spec, DriftSpec)
            under = with_weights(model, before_step.policy, before_step.networks[0]).policy()
            lrs, states = step_of(under, before, np.array([step]), np.array(loss), columns)
            assert states.tobytes() == before_step.states[:, :size].tobytes()
            if not math.isnan(done.lr):
                again += 1
                assert done.lr == lrs[0]
        after_step.advise(step, loss)
        stood = after_step.states[:, :size].copy()
        assert math.isnan(adapt(after_step, 0, step, alignment).lr)
        assert after_step.states[:, :size].tobytes() == stood.tobytes()
    assert again >= 2


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_a_rate_that_is_held_stands(spec: Architecture) -> None:
    """At a step whose loss is not finite an update moves the weights, and neither rate nor frozen state."""
    runs = Runs(adaptive(random_model(spec, 5)), [HORIZON])
    for step in range(40):
        runs.advise(step, [2 * math.exp(-step / 30)])
    runs.advise(40, [math.nan])
    size, before = runs.policy._learner.frozen_size, runs.states.copy()  # type: ignore[attr-defined]
    done = adapt(runs, 0, 40, 1.0)
    assert math.isnan(done.lr)
    assert runs.states[:, :size].tobytes() == before[:, :size].tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_updates_are_those_of_torchs_adam(spec: Architecture) -> None:
    """Over 30 updates weights stay within 1e-5 of torch's Adam under the gradients of the run."""
    model = random_model(spec, 5, snapshots=1)
    policy = adaptive(model, learning_rate=1e-4, weight_decay=1e-3, clip=1e6)
    runs, rng, updates = Runs(policy, [HORIZON]), np.random.default_rng(0), 0
    leaves = {name: torch.tensor(array, dtype=torch.float64) for name, array in model.snapshots[0].items()}
    adam = torch.optim.Adam(leaves.values(), lr=1e-4, weight_decay=1e-3)
    runs.networks[0] = policy.first_network()
    for step in range(60):
        runs.advise(step, [float(2 * np.exp(rng.normal(0, 0.2) - step / 30))])
        alignment = float(rng.normal())
        trace, _, _, gradient = ours(policy, runs.states[0], runs.networks[0], runs.table)
        done = adapt(runs, 0, step, alignment)
        assert (done.outcome is MetaOutcome.APPLIED) == (trace >= 0)
        if trace >= 0:
            updates += 1
            for name, leaf in leaves.items():
                leaf.grad = torch.from_numpy(-alignment * gradient[name])
            adam.step()
    mine = policy.weights_of(runs.networks[0])[0]
    assert updates >= 3
    for name, leaf in leaves.items():
        moved = np.abs(leaf.numpy() - model.snapshots[0][name]).max()
        assert np.abs(mine[name] - leaf.numpy()).max() <= 1e-5 + 1e-3 * moved


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_no_update_moves_the_rate_too_far(spec: Architecture) -> None:
    """At the traces of the last four updates ln lr moves by max_change at most, whatever Adam's rate."""
    policy, rng = (
        adaptive(random_model(spec, 5), learning_rate=0.3, max_change=0.05),
        np.random.default_rng(0),
    )
    learner, runs, farthest = policy._learner, Runs(policy, [HORIZON]), 0.0
    for step in range(50):
        runs.advise(step, [float(2 * np.exp(rng.normal(0, 0.2) - step / 30))])
        first = not runs.networks.any()
        network = policy.first_network() if first else runs.networks[0].copy()
        done = adapt(runs, 0, step, float(rng.normal()))
        counters = policy.meta_counters(runs.states[0])
        assert counters.last_log_change == done.log_change
        kept = policy._traces(runs.states[0])[learner.traces :]
        before, after = np.empty(len(kept)), np.empty(len(kept))
        used = kept.any(axis=1)
        learner.levels(kept, runs.table, 0, network, before)
        learner.levels(kept, runs.table, 0, runs.networks[0], after)
        assert np.abs(after - before)[used].max(initial=0.0) <= 0.05
        farthest = max(farthest, abs(done.log_change))
    assert counters.scaled > 0
    assert farthest > 0.02


def test_last_resort_is_not_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no share of an update is small enough, the weights stay and the change is 0."""
    monkeypatch.setattr("mlrs_core.adapting.kernel.TRIES", 1)
    policy = adaptive(random_model(PaperSpec(hidden_size=8), 5), learning_rate=0.3, max_change=1e-6)
    runs = Runs(policy, [HORIZON])
    runs.advise(0, [2.0])
    done = adapt(runs, 0, 0, 1.0)
    assert (done.outcome, done.log_change) == (MetaOutcome.SCALED, 0.0)
    size = policy.network_size // 4
    assert runs.networks[0, :size].tobytes() == policy.first_network()[:size].tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_idle_updates_move_nothing(spec: Architecture) -> None:
    """Before any finite loss, at an alignment of 0, and beyond the bounds: counted, and no bit moves."""
    policy = adaptive(random_model(spec, 5))
    tight = RunConfig(horizon=60, num_classes=10, min_lr=1e-12, max_lr=1e-12)
    runs = Runs(policy, [HORIZON, HORIZON, tight])
    runs.advise(0, [math.nan, 2.0, 2.0])
    for row, alignment in enumerate((1.0, 0.0, 1.0)):
        before = runs.states[row, : policy._learner.frozen_size].tobytes()
        done = adapt(runs, row, 0, alignment)
        assert (done.outcome, done.log_change, math.isnan(done.lr)) == (MetaOutcome.IDLE, 0.0, True)
        assert policy.meta_counters(runs.states[row])[:4] == (1, 0, 0, 0)
        assert runs.networks[row].tobytes() == policy.first_network().tobytes()
        assert runs.states[row, : policy._learner.frozen_size].tobytes() == before


def test_bounds_hold_the_rate_that_is_advised() -> None:
    """A learning rate moved by an offset is compared with the bounds, not what the network says alone."""
    policy = adaptive(random_model(PaperSpec(hidden_size=8), 5))
    plain = Runs(policy, [HORIZON])
    (lr,) = plain.advise(0, [2.0])
    above = RunConfig(horizon=60, num_classes=10, lr_offset=-3.0, max_lr=lr / 2)
    below = RunConfig(horizon=60, num_classes=10, lr_offset=-3.0, min_lr=lr / 2)
    runs = Runs(policy, [above, below])
    assert runs.advise(0, [2.0, 2.0]).tolist() == [lr / 8, lr / 2]
    outcomes = [adapt(runs, row, 0, 1.0).outcome for row in range(2)]
    assert outcomes[0] in MOVED
    assert outcomes[1] is MetaOutcome.IDLE


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_the_gradient_is_that_of_the_rate_that_is_advised(spec: Architecture) -> None:
    """Where the factor of a run is halved between updates, twice the alignment gives the same weights."""
    policy = adaptive(random_model(spec, 5), learning_rate=0.01, clip=1e6)
    runs, rng, moved = Runs(policy, [HORIZON, HORIZON]), np.random.default_rng(0), 0
    for step in range(40):
        runs.table["factor"][1] = 0.5 if step >= 20 else 1.0
        alignment = float(rng.normal())
        runs.advise(step, [float(2 * np.exp(rng.normal(0, 0.2) - step / 30))] * 2)
        first = adapt(runs, 0, step, alignment)
        second = adapt(runs, 1, step, alignment / float(runs.table["factor"][1]))
        assert first == second or math.isnan(first.lr)
        moved += step >= 20 and first.outcome in MOVED
        assert runs.networks[0].tobytes() == runs.networks[1].tobytes()
    assert moved


def test_the_way_up_is_idle() -> None:
    """The drift network's learning rate does not depend on its weights before it reaches an aim."""
    policy = adaptive(random_model(DriftSpec(hidden_size=24), 5))
    runs, outcomes = Runs(policy, [RunConfig(scale=0.5, initial_lr=0.3)]), []
    for step in range(40):
        runs.advise(step, [2 * math.exp(-step / 30)])
        outcomes.append(adapt(runs, 0, step, 1.0).outcome)
    assert outcomes[0] is MetaOutcome.IDLE
    assert outcomes[-1] is not MetaOutcome.IDLE


def test_counters_say_what_was_done() -> None:
    """Updates, clips and scalings are counted, and it is known whether the newest step had its update."""
    policy = adaptive(random_model(PaperSpec(hidden_size=8), 5), max_change=1e-3, clip=2.0)
    runs = Runs(policy, [HORIZON])
    outcomes = []
    for step in range(10):
        runs.advise(step, [2.0])
        assert not policy.meta_counters(runs.states[0]).adapted
        outcomes.append(adapt(runs, 0, step, 1e-3 if step < 9 else 1e6).outcome)
        assert policy.meta_counters(runs.states[0]).adapted
    clips = sum(done in {MetaOutcome.CLIPPED, MetaOutcome.CLIPPED_AND_SCALED} for done in outcomes)
    scales = sum(done in {MetaOutcome.SCALED, MetaOutcome.CLIPPED_AND_SCALED} for done in outcomes)
    counters = policy.meta_counters(runs.states[0])
    assert (counters.updates, counters.clipped, counters.scaled) == (10, clips, scales)
    assert clips == 1
    assert scales > 0


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_a_blow_up_brings_the_model_back(spec: Architecture) -> None:
    """The step whose loss shows a blow-up is already advised under the good weights, here the model's."""
    model = random_model(spec, 5)
    runs, frozen = Runs(adaptive(model, learning_rate=0.1), [HORIZON]), Runs(model.policy(), [HORIZON])
    for step in range(40):
        runs.advise(step, [2 * math.exp(-step / 30)])
    assert adapt(runs, 0, 39, 1.0).outcome in MOVED
    size = frozen.policy.state_size
    for step in range(40, 60):
        before = runs.states[:, :size].copy()
        lr = runs.advise(step, [100.0])
        if runs.policy.meta_counters(runs.states[0]).returns:  # type: ignore[attr-defined]
            break
    frozen.states[:] = before
    assert step <= 43
    assert frozen.advise(step, [100.0]).tobytes() == lr.tobytes()


@pytest.mark.parametrize("alignment", [math.nan, math.inf, -1e31])
def test_bad_alignments_are_refused(alignment: float) -> None:
    """An alignment that is not finite, or beyond 1e30, is refused by name and moves nothing."""
    runs = Runs(adaptive(random_model(SMALL[0])), [HORIZON])
    runs.advise(0, [2.0])
    before = runs.states.tobytes()
    with pytest.raises(InvalidFieldError, match="alignment"):
        adapt(runs, 0, 0, alignment)
    assert runs.states.tobytes() == before


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_weights_are_the_models_by_name(spec: Architecture) -> None:
    """The first network holds the model's weights, snapshot by snapshot, name by name."""
    model = random_model(spec, 3)
    policy = adaptive(model)
    for mine, theirs in zip(policy.weights_of(policy.first_network()), model.snapshots, strict=True):
        assert mine.keys() == theirs.keys()
        assert all((mine[name] == theirs[name]).all() for name in theirs)
    assert policy.network_size == 4 * 3 * model.parameters


@pytest.mark.parametrize("magnitude", [1.0, 1e9], ids="weights to {:g}".format)
@pytest.mark.parametrize("spec", SMALL, ids=label)
@settings(max_examples=12)
@given(
    events=st.lists(st.tuples(st.floats(), st.none() | st.floats(-1e30, 1e30)), max_size=40),
    learning_rate=st.sampled_from([1e-3, 1.0]),
    max_change=st.sampled_from([0.1, 10.0]),
    order=st.sampled_from(MetaOrder),
)
def test_whatever_happens_numbers_are_finite(
    spec: Architecture,
    magnitude: float,
    events: list[tuple[float, float | None]],
    learning_rate: float,
    max_change: float,
    order: MetaOrder,
) -> None:
    """Any losses and alignments, under any weights, leave weights finite and rates finite and positive."""
    rng = np.random.default_rng(len(events))
    weights = {
        name: (rng.uniform(-1, 1, shape) * magnitude).astype(np.float32)
        for name, shape in spec.weight_shapes().items()
    }
    model = Model(architecture=spec, snapshots=(weights,), provenance={})
    policy = adaptive(model, learning_rate=learning_rate, max_change=max_change, order=order)
    runs, seen = Runs(policy, [RunConfig(num_classes=10)]), False
    for step, (loss, alignment) in enumerate(events):
        lr = runs.advise(step, [loss])[0]
        seen |= math.isfinite(loss)
        assert math.isfinite(lr)
        assert lr > 0 or not seen
        if alignment is not None:
            done = adapt(runs, 0, step, alignment)
            assert math.isnan(done.lr) or 0 < done.lr < math.inf
            assert abs(done.log_change) <= max_change * (1 + 1e-6)
        assert np.isfinite(runs.states).all()
        assert np.isfinite(runs.networks).all()
