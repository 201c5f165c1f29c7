"""The losses of a batch are those that scikit-learn's own updates descend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.frameworks import framework

framework("sklearn", "scikit-learn")
from sklearn.linear_model import SGDClassifier, SGDRegressor  # noqa: E402
from sklearn.metrics import hinge_loss, log_loss, mean_squared_error  # noqa: E402

from mlrs.sklearn.losses import CLASSIFYING, REGRESSING, batch_loss  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
BINARY = (X @ [1.0, -2.0, 0.5] + RNG.normal(size=40) > 0).astype(int)
CLASSES = np.array(["a", "b", "c"])[np.argmax(X + RNG.normal(size=(40, 3)), axis=1)]
REAL = X @ [1.0, -2.0, 0.5] + RNG.normal(size=40)


def slope(estimator: Any, x: Any, y: Any) -> Any:
    """Return the derivative of the loss by the weights and the intercept, by small differences."""
    rows = []
    for part in (estimator.coef_, estimator.intercept_):
        for index in np.ndindex(part.shape):
            sides = []
            for sign in (1e-6, -1e-6):
                part[index] += sign
                sides.append(batch_loss(estimator, x, y, None, None))
                part[index] -= sign
            rows.append((sides[0] - sides[1]) / 2e-6)
    return np.array(rows)


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        *((SGDClassifier, name, BINARY) for name in sorted(CLASSIFYING)),
        *((SGDClassifier, name, CLASSES) for name in sorted(CLASSIFYING)),
        *((SGDRegressor, name, REAL) for name in sorted(REGRESSING)),
    ],
)
def test_updates_descend_the_loss(kind: Any, name: str, labels: Any) -> None:
    """An update with one sample moves the weights by minus the learning rate times the slope of its loss."""
    model = kind(loss=name, penalty=None, alpha=0.0, learning_rate="constant", eta0=0.01, random_state=0)
    model.partial_fit(X, labels, **({} if kind is SGDRegressor else {"classes": np.unique(labels)}))
    moved = 0
    for index in range(len(X)):
        x, y = X[index : index + 1], labels[index : index + 1]
        before = np.concatenate([model.coef_.ravel(), model.intercept_.ravel()])
        expected = before - model.eta0 * slope(model, x, y)
        model.partial_fit(x, y)
        after = np.concatenate([model.coef_.ravel(), model.intercept_.ravel()])
        np.testing.assert_allclose(after, expected, atol=1e-7)
        moved += not np.array_equal(before, after)
    assert moved > 0


def test_known_losses() -> None:
    """Losses of whole batches are those of scikit-learn's metrics, weighted too, and of a new model ln 2."""
    weights = RNG.random(40)
    model = SGDClassifier(loss="log_loss", random_state=0)
    assert batch_loss(model, X, BINARY, [0, 1], None) == pytest.approx(np.log(2.0))
    assert batch_loss(model, X, CLASSES, ["a", "b", "c"], None) == pytest.approx(3 * np.log(2.0))
    model.fit(X, BINARY)
    expected = log_loss(BINARY, model.predict_proba(X), sample_weight=weights)
    assert batch_loss(model, X, BINARY, None, weights) == pytest.approx(expected)
    model = SGDClassifier(loss="hinge", random_state=0).fit(X, BINARY)
    assert batch_loss(model, X, BINARY, None, None) == pytest.approx(
        hinge_loss(BINARY, model.decision_function(X))
    )
    line = SGDRegressor(random_state=0)
    assert batch_loss(line, X, REAL, None, None) == pytest.approx(0.5 * np.mean(REAL**2))
    line.fit(X, REAL)
    expected = 0.5 * mean_squared_error(REAL, line.predict(X))
    assert batch_loss(line, X, REAL, None, None) == pytest.approx(expected)
