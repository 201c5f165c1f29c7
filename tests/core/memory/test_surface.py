"""How runs end over what they are advised under: the fitted surface."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.memory.surface import (
    BEND,
    BEND_AT,
    LENGTH,
    LEVEL,
    MOST_BEND,
    NOISE_SHARES,
    NOISES,
    OWN,
    OWN_LENGTH,
    SCALE_SHARES,
    SCALES,
    SLOPE,
    WORST,
    Points,
    Surface,
    fitted,
)
from mlrs_core.policy import Floats

ROWS = st.lists(
    st.tuples(
        st.floats(-6, 6), st.sampled_from([(0, 0), (1, 0), (2, 1)]), st.integers(0, 2), st.floats(0, WORST)
    ),
    min_size=1,
    max_size=8,
)
AT = Points.of([(octave, line, int(line == 2), 0) for line in range(3) for octave in (-4, -0.5, 0, 0.3, 4)])


def fit(*rows: tuple[float, float], at: Points = AT) -> Surface:
    """Return the surface of runs of one line, given by octave and score."""
    points = Points.of([(octave, 0, 0, 0) for octave, _ in rows])
    return fitted(points, np.array([score for _, score in rows]), np.ones(len(rows)), at)


def line(*octaves: float) -> Points:
    """Return points of one line."""
    return Points.of([(octave, 0, 0, 0) for octave in octaves])


def covariance(left: Points, right: Points, scale: float) -> Floats:
    """Return the covariances of scores, one pair after the other, as the module's docstring says."""
    made = np.zeros((len(left), len(right)))
    for i in range(len(left)):
        for j in range(len(right)):
            a, b = float(left.octaves[i]), float(right.octaves[j])
            if left.shapes[i] == right.shapes[j]:
                made[i, j] += scale**2 * (math.exp(-0.5 * ((a - b) / LENGTH) ** 2) + SLOPE**2 * a * b)
            if left.lines[i] == right.lines[j]:
                made[i, j] += scale**2 * OWN**2 * math.exp(-0.5 * ((a - b) / OWN_LENGTH) ** 2)
            if left.levels[i] == right.levels[j]:
                made[i, j] += LEVEL**2
    return made


def bent(points: Points, scale: float) -> Floats:
    """Return the scores that are expected before any run ended."""
    return np.minimum(BEND * scale * (points.octaves - BEND_AT) ** 2, MOST_BEND)


@settings(max_examples=25)
@given(ROWS)
def test_it_is_a_mixture_of_gaussian_processes(rows: list[tuple[float, tuple[int, int], int, float]]) -> None:
    """Means and deviations are those of each process, solved plainly, weighted by its probability."""
    runs = Points.of([(octave, line, shape, level) for octave, (line, shape), level, _ in rows])
    scores = np.array([score for *_, score in rows])
    weights: Floats = np.exp2(-np.arange(float(len(rows))))
    surface = fitted(runs, scores, weights, AT)
    logs, means, variances = [], [], []
    for scale, scale_share in zip(SCALES, SCALE_SHARES, strict=True):
        for noise, noise_share in zip(NOISES, NOISE_SHARES, strict=True):
            own = covariance(runs, runs, scale) + np.diag(noise**2 / weights)
            across = covariance(runs, AT, scale)
            above = scores - bent(runs, scale)
            solved = np.linalg.solve(own, above)
            logs.append(
                math.log(scale_share * noise_share) - 0.5 * above @ solved - 0.5 * np.linalg.slogdet(own)[1]
            )
            means.append(bent(AT, scale) + across.T @ solved)
            variances.append(np.diag(covariance(AT, AT, scale) - across.T @ np.linalg.solve(own, across)))
    shares = np.exp(np.array(logs) - max(logs))
    shares /= shares.sum()
    mean = shares @ np.array(means)
    assert surface.mean == pytest.approx(mean, abs=1e-6)
    variance = shares @ (np.array(variances) + (np.array(means) - mean) ** 2)
    assert surface.deviation == pytest.approx(np.sqrt(variance), abs=1e-4)


@given(ROWS)
def test_the_difference_to_a_point_is_known_at_that_point(
    rows: list[tuple[float, tuple[int, int], int, float]],
) -> None:
    """The score of a point against itself is 0, and no difference is less certain than both scores."""
    runs = Points.of([(octave, line, shape, level) for octave, (line, shape), level, _ in rows])
    surface = fitted(runs, np.array([score for *_, score in rows]), np.ones(len(rows)), AT)
    for reference in range(len(AT)):
        means, deviations = surface.against(reference)
        assert np.all(means[:, reference] == 0.0)
        assert np.all(deviations[:, reference] < 1e-3)
        both = surface.deviations + surface.deviations[:, [reference]]
        assert np.all(deviations <= both + 1e-3)
        assert np.isfinite(deviations).all()


def test_what_ended_worse_is_expected_to_end_worse() -> None:
    """Where a run ended far above the others, the surface is higher than where these ended."""
    means = fit((-1.0, 0.0), (0.0, 0.0), (2.0, WORST), at=line(-0.5, 2.0)).mean
    assert means[1] > means[0] + 0.1


def test_runs_make_it_surer() -> None:
    """The deviation is smaller near runs than far from them, and with more runs than with fewer."""
    one, three = (fit(*[(0.0, 0.0)] * count, at=line(0.0, 3.0)).deviation for count in (1, 3))
    assert one[0] < one[1]
    assert three[0] < one[0]


def test_a_run_that_counts_less_tells_less() -> None:
    """A score of a lower weight moves the surface less."""
    runs, at = line(-1.0, 1.0), line(1.0)
    means = [
        float(fitted(runs, np.array([0.0, 0.3]), np.array([1.0, weight]), at).mean[0]) for weight in (1, 0.1)
    ]
    assert means[0] > means[1]


def test_the_noise_is_that_of_repeated_runs() -> None:
    """Runs under one arm that end alike show little noise, and such that do not, much."""
    quiet = fit(*[(0.0, 0.001 * (index % 2)) for index in range(12)])
    loud = fit(*[(0.0, 0.3 * (index % 2)) for index in range(12)])
    assert quiet.noise < 0.05 < loud.noise


def test_many_runs_of_one_arm_are_no_problem() -> None:
    """As many runs of one arm and one score as ever count give finite means and deviations."""
    surface = fit(*[(0.0, 0.0)] * 32)
    assert np.isfinite(surface.mean).all()
    assert np.isfinite(surface.deviation).all()
