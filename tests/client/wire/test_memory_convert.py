"""Messages about the memory of a task to values."""

from __future__ import annotations

import datetime as dt

from google.protobuf.timestamp_pb2 import Timestamp

from mlrs.types import Ending, Expected, Measure, PastRun, Recalled
from mlrs.wire import convert
from mlrs.wire.memory_convert import explored_to_proto, memory_from_proto, recalled_from_proto
from mlrs_proto import v1 as pb

TIME = dt.datetime(2025, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
RECALLED = pb.Recalled(
    why="because", decided=True, measure=pb.MEASURE_METRIC, expected_low=0.0, expected_high=1.0
)


def test_numbers_match_the_contract() -> None:
    """Every measure, ending and way to explore of the contract has a value here."""
    for number in set(pb.Measure.values()) - {pb.MEASURE_UNSPECIFIED}:
        measure = recalled_from_proto(pb.Recalled(measure=number)).measure
        assert measure is not None
        assert f"MEASURE_{measure.upper()}" == pb.Measure.Name(number)
    for number in set(pb.Ending.values()) - {pb.ENDING_UNSPECIFIED}:
        (run,) = memory_from_proto(pb.GetTaskResponse(runs=[pb.PastRun(ending=number)])).runs
        assert run.ending is not None
        assert f"ENDING_{run.ending.upper()}" == pb.Ending.Name(number)
    assert [explored_to_proto(one) for one in (None, "careful", "full", "none")] == pb.Explore.values()


def test_what_was_recalled_is_read_and_never_sent() -> None:
    """A daemon's decision arrives with the config, and does not go back with it."""
    message = pb.RunConfig(recalled=RECALLED, batch_size=8)
    config = convert.config_from_proto(message)
    assert config.recalled == Recalled(
        why="because", decided=True, measure=Measure.METRIC, expected_low=0.0, expected_high=1.0
    )
    assert convert.config_to_proto(config) == pb.RunConfig(batch_size=8)


def test_decisions_in_words() -> None:
    """A decision reads as its reason, with what is expected if anything is."""
    assert str(recalled_from_proto(RECALLED)) == "because; expected metric 0 to 1"
    assert str(recalled_from_proto(pb.Recalled(why="because"))) == "because"


def test_every_field_of_a_past_run_arrives() -> None:
    """A run of a task has everything that the message has."""
    message = pb.PastRun(
        run_id="a/b",
        time=Timestamp(seconds=int(TIME.timestamp())),
        ending=pb.ENDING_STOPPED,
        policy="cosine",
        learning_rate=0.1,
        lr_offset=0.5,
        searched=True,
        optimizer="adamw",
        momentum=0.9,
        horizon=100,
        batch_size=8,
        metric=0.25,
        higher_is_better=True,
        validation_loss=1.0,
        training_loss=2.0,
        recalled=RECALLED,
    )
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    (run,) = memory_from_proto(pb.GetTaskResponse(runs=[message])).runs
    assert run == PastRun(
        id="a/b",
        time=TIME,
        ending=Ending.STOPPED,
        policy="cosine",
        learning_rate=0.1,
        lr_offset=0.5,
        searched=True,
        optimizer="adamw",
        momentum=0.9,
        horizon=100,
        batch_size=8,
        metric=0.25,
        higher_is_better=True,
        validation_loss=1.0,
        training_loss=2.0,
        recalled=recalled_from_proto(RECALLED),
    )
    assert [run.measured(one) for one in (*Measure, None)] == [0.25, 1.0, 2.0, None]


def test_what_is_unknown_is_none() -> None:
    """What a message leaves unset is `None`, also of kinds that a newer daemon has."""
    newer = pb.PastRun(run_id="a")
    newer.ending = 77  # type: ignore[assignment] # a number from the future
    memory = memory_from_proto(pb.GetTaskResponse(runs=[newer], curve=[pb.Expected(policy="x@1", value=2.0)]))
    (run,), (expected,) = memory.runs, memory.curve
    assert (run.ending, run.learning_rate, run.batch_size, run.metric, run.recalled) == (None,) * 5
    assert expected == Expected(policy="x@1", learning_rate=None, lr_offset=0.0, value=2.0, low=0.0, high=0.0)
    assert (memory.measure, memory.best, memory.next) == (None, None, None)
