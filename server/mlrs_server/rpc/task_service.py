"""The RPCs of `TaskService`: each converts messages and calls the memory of tasks."""

from __future__ import annotations

from typing import Any

import grpc

from mlrs_proto import v1 as pb
from mlrs_proto.v1.task_service_pb2_grpc import TaskServiceServicer
from mlrs_server.auth.principal import current_caller
from mlrs_server.rpc import convert
from mlrs_server.runs.remembering import TaskMemory
from mlrs_server.tenancy import check_run_id

Context = grpc.aio.ServicerContext[Any, Any]


class TaskService(TaskServiceServicer):
    """Tasks, and what is remembered of their runs. Every call is limited to the caller's tenant."""

    def __init__(self, memory: TaskMemory) -> None:
        """Serve what this memory has."""
        self._memory = memory

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        """List tasks; the page token is the last name of the previous page."""
        size = convert.page_size_from_proto(request.page_size)
        after = request.page_token and check_run_id(request.page_token, "page_token")
        tasks = await self._memory.tasks(current_caller().tenant, after=after, limit=size + 1)
        token = tasks[size - 1].name if len(tasks) > size else ""
        return pb.ListTasksResponse(tasks=map(convert.task_to_proto, tasks[:size]), next_page_token=token)

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        """Read what is remembered of a task."""
        name = check_run_id(request.task, "task")
        return convert.view_to_proto(await self._memory.task(current_caller().tenant, name))

    async def ForgetTask(self, request: pb.ForgetTaskRequest, context: Context) -> pb.ForgetTaskResponse:
        """Forget a task."""
        name = check_run_id(request.task, "task")
        return pb.ForgetTaskResponse(runs=await self._memory.forget(current_caller().tenant, name))
