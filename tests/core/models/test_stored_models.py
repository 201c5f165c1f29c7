"""Changed code never changes the advice of a stored model."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from mlrs_core.models.checkpoint import dump_model, parse_model, read_model
from tests.core.models.pinned_advice import CONFIGS, EVERY, FILE, MODELS, build, trace

PINNED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", ["mlr-snet", "paper"])
def test_shipped_files_are_the_same_for_ever(model: str) -> None:
    """A shipped file keeps its bytes, and written again from what was read it has the same digest."""
    data = (MODELS / f"{model}.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == PINNED["digests"][model]
    assert dump_model(parse_model(data)) == data


def test_every_shipped_model_is_pinned() -> None:
    """A model cannot be shipped without its digest and its advice being written down."""
    digests = {path.stem: read_model(path)[1] for path in MODELS.glob("*.safetensors")}
    assert digests == PINNED["digests"]
    assert {name.partition(",")[0] for name in PINNED["advice"]} == digests.keys()


@pytest.mark.parametrize("meta", [False, True], ids=["frozen", "meta"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("model", ["mlr-snet", "paper"])
def test_advice_of_shipped_models_stays(model: str, config: str, meta: bool) -> None:  # noqa: FBT001
    """A shipped model advises what it advised when this was written down: on the same build, to the bit."""
    pinned = PINNED["advice"][f"{model}, {config}{', meta' if meta else ''}"]
    rates = trace(model, CONFIGS[config], meta=meta)
    np.testing.assert_allclose(rates[::EVERY], pinned["rates"], rtol=1e-5)
    if build() == PINNED["build"]:  # elsewhere exp and log may round otherwise
        assert hashlib.sha256(rates.tobytes()).hexdigest() == pinned["sha256"]
