"""A small data set for tests of boosting."""

from __future__ import annotations

from typing import Any

from tests.support.frameworks import framework


def tumors() -> tuple[Any, Any]:
    """Return two hundred tumors, (200, 30), and whether each is benign."""
    framework("sklearn", "scikit-learn")
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return features[:200], labels[:200]
