"""Messages to values and back."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mlrs import AdviceReason, Optimizer
from mlrs.types import RunConfig
from mlrs.wire import convert
from mlrs_proto import v1 as pb

REALS = st.none() | st.floats(allow_nan=False)
COUNTS = st.none() | st.integers(0, 2**31 - 1)
CONFIGS = st.builds(
    RunConfig,
    model=st.none() | st.text(min_size=1),
    horizon=COUNTS,
    num_classes=COUNTS,
    scale=REALS,
    snapshot=COUNTS,
    optimizer=st.none() | st.sampled_from(Optimizer),
    momentum=REALS,
    min_lr=REALS,
    max_lr=REALS,
)


@given(CONFIGS)
def test_configs_survive_the_wire(config: RunConfig) -> None:
    """A config comes back as it was, with 0 distinct from not given."""
    wire = convert.config_to_proto(config).SerializeToString()
    assert convert.config_from_proto(pb.RunConfig.FromString(wire)) == config


def test_numbers_match_the_contract() -> None:
    """Every update rule, status and reason of the contract has a value here."""
    for number in set(pb.Optimizer.values()) - {pb.OPTIMIZER_UNSPECIFIED}:
        config = convert.config_from_proto(pb.RunConfig(optimizer=number))
        assert config.optimizer is not None
        assert f"OPTIMIZER_{config.optimizer.upper()}" == pb.Optimizer.Name(number)
    for number in set(pb.RunStatus.values()) - {pb.RUN_STATUS_UNSPECIFIED}:
        status = convert.run_from_proto(pb.Run(status=number)).status
        assert convert.status_to_proto(status) == number
    for number in set(pb.AdviceReason.values()) - {pb.ADVICE_REASON_UNSPECIFIED}:
        assert pb.AdviceReason.Name(number) == f"ADVICE_REASON_{convert.reason_from_proto(number).upper()}"


def test_values_of_newer_daemons() -> None:
    """A value that this version does not know does not stop it."""
    config = pb.RunConfig()
    config.optimizer = 77  # type: ignore[assignment] # a number from the future
    assert convert.config_from_proto(config).optimizer is None
    assert convert.model_from_proto(pb.Model(provenance_json="[1]")).provenance == {"text": "[1]"}


def test_records() -> None:
    """A stretch of a record keeps its losses, NaN included, and its reasons."""
    chunk = convert.chunk_from_proto(
        pb.WatchRunResponse(
            first_step=3,
            losses=[1.0, math.nan],
            learning_rates=[0.1, 0.1],
            reasons=[pb.ADVICE_REASON_FRESH, pb.ADVICE_REASON_HELD],
        )
    )
    assert chunk.first_step == 3
    assert math.isnan(chunk.losses[1])
    assert chunk.reasons == (AdviceReason.FRESH, AdviceReason.HELD)
