"""For the tests of the adapter for scikit-learn: small batches of digits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.frameworks import framework

framework("sklearn", "scikit-learn")


@pytest.fixture(scope="session")
def batches() -> list[Any]:
    """Twenty batches of sixteen digits, scaled to 0 to 1."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return [(images[at : at + 16] / 16.0, labels[at : at + 16]) for at in range(0, 320, 16)]
