"""Messages to values and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs import AdviceReason, Optimizer, Schedule, errors
from mlrs.types import MetaOutcome, MetaRecord, RunConfig
from mlrs.wire import convert, meta_convert
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


def test_records_of_meta_updates() -> None:
    """Every field of a meta update in a record arrives, also whether it was clipped and scaled."""
    message = pb.MetaRecord(
        step=7,
        alignment=-0.5,
        validation_loss=1.5,
        outcome=pb.META_OUTCOME_APPLIED,
        learning_rate=0.25,
        log_change=0.125,
        clipped=True,
        scaled=True,
    )
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert meta_convert.record_from_proto(message) == MetaRecord(
        step=7,
        alignment=-0.5,
        validation_loss=1.5,
        outcome=MetaOutcome.APPLIED,
        learning_rate=0.25,
        log_change=0.125,
        clipped=True,
        scaled=True,
    )


def test_a_schedule_of_a_newer_client_is_refused() -> None:
    """A kind that this version does not know, as in a file of a newer client, is refused by the field."""
    config = RunConfig(schedule=convert.config_from_proto(pb.RunConfig(schedule=pb.Schedule())).schedule)
    assert isinstance(config.schedule, Schedule)
    with pytest.raises(errors.InvalidArgumentError) as caught:
        convert.config_to_proto(config)
    assert caught.value.field == "config.schedule.kind"
