"""The losses of scikit-learn's stochastic gradient descent, of a batch before its update.

They are the loss functions of the estimators, without the penalty and without `class_weight`: a mean over the
samples, weighted by `sample_weight`, and of several classes the sum over them, each against all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]


def _huber(residual: Floats, epsilon: float) -> Floats:
    size = np.abs(residual)
    return np.where(size <= epsilon, 0.5 * size**2, epsilon * size - 0.5 * epsilon**2)


def _modified_huber(margin: Floats) -> Floats:
    return np.where(margin >= -1.0, np.maximum(1.0 - margin, 0.0) ** 2, -4.0 * margin)


CLASSIFYING: dict[str, Callable[[Floats], Floats]] = {
    "hinge": lambda margin: np.maximum(1.0 - margin, 0.0),
    "squared_hinge": lambda margin: np.maximum(1.0 - margin, 0.0) ** 2,
    "perceptron": lambda margin: np.maximum(-margin, 0.0),
    "log_loss": lambda margin: np.logaddexp(0.0, -margin),
    "modified_huber": _modified_huber,
}
"""By the name of the loss: its value, given the score of a sample times its label, which is 1 or -1."""
REGRESSING: dict[str, Callable[[Floats, float], Floats]] = {
    "squared_error": lambda residual, _: 0.5 * residual**2,
    "huber": _huber,
    "epsilon_insensitive": lambda residual, epsilon: np.maximum(np.abs(residual) - epsilon, 0.0),
    "squared_epsilon_insensitive": lambda residual, epsilon: np.maximum(np.abs(residual) - epsilon, 0.0) ** 2,
}
"""By the name of the loss: its value, given the difference of a sample from its prediction, and epsilon."""


def batch_loss(estimator: Any, X: Any, y: Any, classes: Any, sample_weight: Any) -> float:  # noqa: N803 # scikit-learn's
    """Return the mean loss of a batch under an estimator, which may not have been fitted yet.

    Args:
        estimator: an `SGDClassifier` or `SGDRegressor`.
        X: (n, features), as `partial_fit` takes them.
        y: (n,).
        classes: all classes, for a classifier that was not fitted yet.
        sample_weight: (n,), or `None`.
    """
    labels = np.asarray(y).ravel()
    is_new, name = not hasattr(estimator, "coef_"), estimator.loss
    if name in REGRESSING:
        predicted = np.zeros(len(labels)) if is_new else estimator.predict(X)
        values = REGRESSING[name](labels - predicted, estimator.epsilon)
    else:
        known = (
            np.unique(labels if classes is None else np.asarray(classes)) if is_new else estimator.classes_
        )
        ones = labels[:, None] == (known[1:] if len(known) == 2 else known)
        scores = np.zeros(ones.shape) if is_new else estimator.decision_function(X).reshape(ones.shape)
        values = CLASSIFYING[name](np.where(ones, scores, -scores)).sum(axis=1)
    return float(np.average(values, weights=sample_weight))
