"""For the tests of the adapters for XGBoost and LightGBM: a small data set."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.frameworks import framework


@pytest.fixture(scope="session")
def data() -> tuple[Any, Any]:
    """Return two hundred tumors and what they are."""
    framework("sklearn", "scikit-learn")
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return features[:200], labels[:200]
