"""The scale rule: the authors' where it makes sense, guarded where it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.scale import MAX_GAMMA, guess_log_classes, shu_gamma
from mlrs_core.networks.serving import policy_of
from mlrs_core.policy import Policy
from tests.core.runs import Runs

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def flat_policy(snapshots: int = 3) -> Policy:
    """Return a policy whose weights are all 0, so that its learning rate is half of gamma."""
    spec = PaperSpec(hidden_size=2)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    return policy_of(spec, [zeros] * snapshots)


def gammas(config: RunConfig, losses: list[float]) -> list[float]:
    """Return the gamma behind each advice of a run with these losses from step 0."""
    runs = Runs(flat_policy(), [config])
    return [2 * float(runs.advise(step, [loss])[0]) for step, loss in enumerate(losses)]


@given(loss=st.floats(1e-6, 100), classes=st.integers(2, 10_000))
@example(loss=math.log(10), classes=10)
def test_rule_is_the_authors_where_it_makes_sense(loss: float, classes: int) -> None:
    """Away from L = 1/C and below the cap, gamma is `abs(sqrt(L) * ln(L C) / C**0.25) / 4`."""
    authors = abs(math.sqrt(loss) * math.log(loss * classes) / classes**0.25) / 4
    assume(abs(math.log(loss * classes)) >= 1 and authors <= MAX_GAMMA)
    assert shu_gamma(loss, math.log(classes)) == pytest.approx(authors, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_rule_does_not_freeze_at_one_over_c(classes: int) -> None:
    """At L = 1/C, where the authors' rule gives 0, gamma is what a logarithm of 1 gives."""
    expected = math.sqrt(1 / classes) / classes**0.25 / 4
    assert shu_gamma(1 / classes, math.log(classes)) == pytest.approx(expected)


@given(classes=st.integers(2, 10_000), ratio=st.floats(1 / math.e, math.e))
def test_guard_reaches_no_further_than_a_factor_e(classes: int, ratio: float) -> None:
    """Within a factor e of L = 1/C, gamma follows sqrt(L); the guard joins the rule without a jump."""
    loss = ratio / classes
    assert shu_gamma(loss, math.log(classes)) == pytest.approx(math.sqrt(loss) / classes**0.25 / 4)


@given(loss=FINITE, log_classes=st.floats(math.log(2), math.log(2**31)))
@example(loss=0.0, log_classes=math.log(10))
@example(loss=-0.0, log_classes=math.log(10))
@example(loss=5e-324, log_classes=math.log(10))
@example(loss=-300.0, log_classes=math.log(10))
@example(loss=1e308, log_classes=math.log(10))
@example(loss=-1e308, log_classes=math.log(2**31))
def test_gamma_is_positive_and_at_most_ten(loss: float, log_classes: float) -> None:
    """Any finite loss, 0, subnormal, negative or huge, gives a gamma in (0, 10]."""
    assert 0 < shu_gamma(loss, log_classes) <= MAX_GAMMA


@given(loss=FINITE)
def test_sign_of_the_loss_does_not_matter(loss: float) -> None:
    """A negative loss counts by its magnitude."""
    assert shu_gamma(loss, math.log(10)) == shu_gamma(-loss, math.log(10))


@given(loss=FINITE)
@example(loss=0.0)
def test_class_count_is_guessed_within_range(loss: float) -> None:
    """Without a class count, ln C is the magnitude of the first loss within [ln 2, ln 1e6]."""
    guess = guess_log_classes(loss)
    assert math.log(2) <= guess <= math.log(1e6)
    assert guess == abs(loss) or guess in (math.log(2), math.log(1e6))


def test_gamma_is_chosen_anew_at_each_switch() -> None:
    """Gamma holds from the first loss of a snapshot to the first loss of the next."""
    losses = [2.3, 9.0, 1.5, 9.0, 0.9, 9.0, 9.0]
    chosen = gammas(RunConfig(horizon=6, num_classes=10), losses)
    expected = [shu_gamma(loss, math.log(10)) for loss in (2.3, 2.3, 1.5, 1.5, 0.9, 0.9, 0.9)]
    assert chosen == pytest.approx(expected, rel=1e-6)


def test_gamma_is_chosen_once_without_a_horizon() -> None:
    """A run that stays on one snapshot keeps the gamma of its first loss."""
    assert gammas(RunConfig(num_classes=10), [2.3, 1.0, 0.1, 50.0]) == pytest.approx(
        [shu_gamma(2.3, math.log(10))] * 4, rel=1e-6
    )


def test_guessed_class_count_stays_that_of_the_first_loss() -> None:
    """Where C is unknown, a switch takes the new loss for L and keeps the first guess for ln C."""
    chosen = gammas(RunConfig(horizon=3), [2.0, 1.5, 1.2])
    assert chosen == pytest.approx([shu_gamma(loss, 2.0) for loss in (2.0, 1.5, 1.2)], rel=1e-6)


def test_explicit_scale_never_changes() -> None:
    """A run with an explicit scale keeps it through every switch, whatever its losses."""
    assert gammas(RunConfig(horizon=6, scale=0.25), [2.3, 9.0, -1.5, 1e9, 0.0, 9.0]) == [0.25] * 6


def test_switch_at_a_held_step_waits_for_a_finite_loss() -> None:
    """Where the losses at the switch are not finite, gamma is chosen at the first that is."""
    chosen = gammas(RunConfig(horizon=12, num_classes=10), [2.3, 9, 9, 9, math.nan, math.inf, 1.5, 0.9])
    first, second = shu_gamma(2.3, math.log(10)), shu_gamma(1.5, math.log(10))
    assert chosen == pytest.approx([*[first] * 6, second, second], rel=1e-6)


def test_first_gamma_waits_for_a_finite_loss() -> None:
    """Before any finite loss there is no gamma; the first one chooses it."""
    chosen = gammas(RunConfig(num_classes=10), [math.nan, -math.inf, 2.3, 1.0])
    assert chosen == pytest.approx([0, 0, *[shu_gamma(2.3, math.log(10))] * 2], rel=1e-6)
