"""The unary calls about tasks as values."""

from __future__ import annotations

from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.task_memory import TaskMemory
from mlrs.values.task_types import TaskInfo
from mlrs.wire.list_calls import Page
from mlrs.wire.memory_convert import memory_from_proto, task_from_proto
from mlrs_proto import v1 as pb


def list_tasks(token: str) -> Call[Page[TaskInfo]]:
    """Read a page of the tasks of which something is remembered."""
    return Call(
        "ListTasks",
        pb.ListTasksRequest(page_token=token),
        lambda response: Page(tuple(map(task_from_proto, response.tasks)), response.next_page_token),
    )


def get_task(name: object) -> Call[TaskMemory]:
    """Read what is remembered of a task."""
    return Call("GetTask", pb.GetTaskRequest(task=check.run_id(name, "name")), memory_from_proto)


def forget_task(name: object) -> Call[int]:
    """Forget how the runs of a task ended; the call returns how many were remembered."""
    request = pb.ForgetTaskRequest(task=check.run_id(name, "name"))
    return Call("ForgetTask", request, lambda response: response.runs)
