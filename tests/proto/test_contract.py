"""The stubs of the contract: what the code relies on, and what users of old runtimes need."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from mlrs_core.config import Optimizer, RunConfig
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceServicer
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceServicer
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceServicer
from mlrs_proto.v1.task_service_pb2_grpc import TaskServiceServicer
from tests.support.stubs import ADVISOR, DAEMON, METHODS, MODELS, TASKS

PROTO = Path(__file__).parents[2] / "proto"
ENUMS = {
    name: kind.DESCRIPTOR for name in pb.__all__ if isinstance(kind := getattr(pb, name), EnumTypeWrapper)
}
MESSAGES = {name: kind.DESCRIPTOR for name in pb.__all__ if isinstance(kind := getattr(pb, name), type)}

UNARY, UP, DOWN, BOTH = (False, False), (True, False), (False, True), (True, True)
"""Which sides of a call stream: (client, server)."""

ADVISOR_RPCS = {
    "OpenRun": UNARY,
    "BatchOpenRuns": UNARY,
    "GetRun": UNARY,
    "ListRuns": UNARY,
    "UpdateRun": UNARY,
    "FinishRun": UNARY,
    "BatchFinishRuns": UNARY,
    "DeleteRun": UNARY,
    "SearchTrial": UNARY,
    "GetSearch": UNARY,
    "Advise": UNARY,
    "StreamAdvice": BOTH,
    "WatchRun": DOWN,
    "SummarizeRecord": UNARY,
    "SampleRecords": UNARY,
    "ListRunEvents": UNARY,
    "Adapt": UNARY,
    "AdaptGradients": UP,
}
MODEL_RPCS = {
    "ListModels": UNARY,
    "GetModel": UNARY,
    "ImportModel": UP,
    "SetAlias": UNARY,
    "PromoteModel": UNARY,
    "RollbackAlias": UNARY,
    "ListAliasChanges": UNARY,
}
TASK_RPCS = {"ListTasks": UNARY, "GetTask": UNARY, "ForgetTask": UNARY}
DAEMON_RPCS = {"GetDaemon": UNARY, "GetDaemonStatus": UNARY}
"""The calls of the services."""

SERVICERS = {
    "AdvisorService": AdvisorServiceServicer,
    "ModelService": ModelServiceServicer,
    "TaskService": TaskServiceServicer,
    "DaemonService": DaemonServiceServicer,
}
"""The generated base class of each service."""


@pytest.mark.parametrize(
    ("service", "rpcs"),
    [(ADVISOR, ADVISOR_RPCS), (MODELS, MODEL_RPCS), (TASKS, TASK_RPCS), (DAEMON, DAEMON_RPCS)],
)
def test_services_have_their_calls(service: Any, rpcs: Any) -> None:
    """Each service has the calls of the design, streaming on the sides that it should."""
    assert {
        method.name: (method.client_streaming, method.server_streaming) for method in service.methods
    } == rpcs


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_messages_are_named_after_their_call(method: MethodDescriptor) -> None:
    """Each call has a request and a response of its own, named after it, so that each can grow."""
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


def test_wire_name_is_not_the_import_path() -> None:
    """On the wire the package is `mlrs.v1`, though its stubs are imported from `mlrs_proto.v1`."""
    assert {message.file.package for message in MESSAGES.values()} == {"mlrs.v1"}
    services = [service.full_name for service in (ADVISOR, MODELS, TASKS, DAEMON)]
    assert services == [f"mlrs.v1.{name}" for name in SERVICERS]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_servicer_and_stub_have_the_calls(method: MethodDescriptor) -> None:
    """The generated base class has each call, and each is routed by its wire name."""
    service = method.containing_service
    servicer = SERVICERS[service.name]
    assert callable(getattr(servicer, method.name))
    stem = Path(service.file.name).stem
    calls = (PROTO / "mlrs_proto" / "v1" / f"{stem}_pb2_grpc.py").read_text()
    assert f"'/{service.full_name}/{method.name}'" in calls


def test_optimizers_have_the_numbers_of_the_core() -> None:
    """An optimizer has one number, in the contract and in the core."""
    numbers = {value.name.removeprefix("OPTIMIZER_"): value.number for value in ENUMS["Optimizer"].values}
    assert numbers == {optimizer.name: optimizer.value for optimizer in Optimizer}


def test_configs_have_the_fields_of_the_core() -> None:
    """A run's config in the contract is the core's, and the model's name."""
    contract = [field.name for field in MESSAGES["RunConfig"].fields]
    assert contract == ["model", *RunConfig.__dataclass_fields__]


@pytest.mark.parametrize("name", [name for name in RunConfig.__dataclass_fields__ if name != "optimizer"])
def test_unset_config_fields_can_be_told_from_zero(name: str) -> None:
    """Every number of a config is optional, so that 0 given is not the same as nothing given."""
    assert MESSAGES["RunConfig"].fields_by_name[name].has_presence


@pytest.mark.parametrize(
    ("message", "field", "kind"),
    [
        ("Observations", "run_handles", FieldDescriptor.TYPE_FIXED64),
        ("Observations", "steps", FieldDescriptor.TYPE_UINT64),
        ("Observations", "losses", FieldDescriptor.TYPE_DOUBLE),
        ("AdviceColumns", "learning_rates", FieldDescriptor.TYPE_DOUBLE),
        ("AdviceColumns", "reasons", FieldDescriptor.TYPE_ENUM),
        ("AdviceColumns", "durable_steps", FieldDescriptor.TYPE_SINT64),
        ("WatchRunResponse", "losses", FieldDescriptor.TYPE_DOUBLE),
        ("WatchRunResponse", "learning_rates", FieldDescriptor.TYPE_DOUBLE),
    ],
)
def test_columns_are_packed(message: str, field: str, kind: int) -> None:
    """The columns of a message are packed numbers: no object an entry, no rounding of a double."""
    descriptor = MESSAGES[message].fields_by_name[field]
    assert descriptor.is_packed
    assert descriptor.type == kind


@pytest.mark.parametrize("enum", list(ENUMS.values()), ids=lambda enum: enum.name)
def test_zero_of_every_enum_says_nothing(enum: object) -> None:
    """The value 0 of each enum is its `UNSPECIFIED`, which a reader without the field sees."""
    first = enum.values[0]  # type: ignore[attr-defined]
    assert first.number == 0
    assert first.name.endswith("_UNSPECIFIED")


def declarations(text: str) -> list[tuple[str, str]]:
    """Return each declaration of a .proto file with the line before it."""
    lines = [line.strip() for line in text.splitlines()]
    declares = re.compile(r"(message|enum|service|rpc|oneof) \w+|[\w. ]+ = \d+;")
    return [(line, before) for before, line in pairwise(lines) if declares.match(line)]


def test_everything_has_a_comment() -> None:
    """Each call, message, field and value of the contract has a comment right above it."""
    files = (PROTO / "mlrs" / "v1").glob("*.proto")
    found = [declared for file in files for declared in declarations(file.read_text())]
    fields = sum(len(message.fields) for message in MESSAGES.values())
    assert len(found) > fields + len(METHODS)
    assert [line for line, before in found if not before.startswith("//")] == []


def test_old_runtimes_take_the_stubs() -> None:
    """The stubs ask for protobuf 5.28.1 and grpcio 1.68.1, the oldest that the package allows."""
    messages = [file.read_text() for file in (PROTO / "mlrs_proto" / "v1").glob("*_pb2.py")]
    calls = [file.read_text() for file in (PROTO / "mlrs_proto" / "v1").glob("*_pb2_grpc.py")]
    project = (PROTO.parent / "pyproject.toml").read_text()
    assert all("# Protobuf Python Version: 5.28.1\n" in text for text in messages)
    assert all("GRPC_GENERATED_VERSION = '1.68.1'\n" in text for text in calls)
    assert 'dependencies = ["grpcio>=1.68.1", "protobuf>=5.28.1"]' in project
