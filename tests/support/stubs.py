"""The calls of the contract from one object, as a test makes them."""

from __future__ import annotations

import grpc

from mlrs_proto.v1 import advisor_service_pb2, daemon_service_pb2, model_service_pb2, task_service_pb2
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceStub
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceStub
from mlrs_proto.v1.task_service_pb2_grpc import TaskServiceStub

ADVISOR = advisor_service_pb2.DESCRIPTOR.services_by_name["AdvisorService"]
MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
TASKS = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"]
DAEMON = daemon_service_pb2.DESCRIPTOR.services_by_name["DaemonService"]
METHODS = {method.name: method for service in (ADVISOR, MODELS, TASKS, DAEMON) for method in service.methods}
"""The methods of the contract, by name."""


class Stub(AdvisorServiceStub, DaemonServiceStub, ModelServiceStub, TaskServiceStub):
    """The calls of all services."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        AdvisorServiceStub.__init__(self, channel)
        DaemonServiceStub.__init__(self, channel)
        ModelServiceStub.__init__(self, channel)
        TaskServiceStub.__init__(self, channel)
