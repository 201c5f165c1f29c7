"""The memory of tasks of the daemon of this process: it decides and knows what a test tells it to."""

# ruff: noqa: ARG002, N802 # the contract's names and arguments

from __future__ import annotations

import grpc

from mlrs_proto import v1 as pb
from mlrs_proto.v1 import task_service_pb2_grpc as task_rpc

PAGE = 2
"""How many tasks are on a page of a list."""


class FakeMemory(task_rpc.TaskServiceServicer):
    """The service of tasks, and what runs that explore are told when they are opened.

    Attributes:
        explored: what each call that opened a run asked for, by the run's id.
        decisions: what is decided for new runs that explore, by their task.
        wants_optimizer: whether nothing is decided before a run's optimizer is known.
        ends: the newest call that finished each run, by the run's id.
        tasks: what is remembered, by task.
    """

    def __init__(self) -> None:
        self.explored: dict[str, list[pb.Explore.ValueType]] = {}
        self.decisions: dict[str, pb.RunConfig] = {}
        self.wants_optimizer = False
        self.ends: dict[str, pb.FinishRunRequest] = {}
        self.tasks: dict[str, pb.GetTaskResponse] = {}

    def decide(self, task: str, *, why: str = "it was best", base_lr: float | None = 0.25) -> None:
        """Decide for new runs of a task: a cosine from a learning rate; `None`: an offset."""
        config = pb.RunConfig(recalled=pb.Recalled(why=why, decided=True))
        if base_lr is None:
            config.lr_offset = 0.5
        else:
            config.schedule.CopyFrom(pb.Schedule(base_lr=base_lr, cosine=pb.Schedule.Cosine()))
        self.decisions[task] = config

    def opened(self, request: pb.OpenRunRequest, task: str, config: pb.RunConfig, *, is_new: bool) -> None:
        """Take in that a run of a task was opened; change its config if there is something to decide."""
        self.explored.setdefault(request.run_id, []).append(request.explore)
        if not is_new or not request.explore or task not in self.decisions or config.recalled.decided:
            return
        if self.wants_optimizer and not config.optimizer:
            config.recalled.CopyFrom(pb.Recalled(why="its optimizer is not known"))
        else:
            config.recalled.Clear()
            config.MergeFrom(self.decisions[task])

    def ListTasks(self, request: pb.ListTasksRequest, context: grpc.ServicerContext) -> pb.ListTasksResponse:
        """List the tasks, two a page."""
        names, start = sorted(self.tasks), int(request.page_token or 0)
        more = str(start + PAGE) if start + PAGE < len(names) else ""
        page = [self.tasks[name].task for name in names[start : start + PAGE]]
        return pb.ListTasksResponse(tasks=page, next_page_token=more)

    def GetTask(self, request: pb.GetTaskRequest, context: grpc.ServicerContext) -> pb.GetTaskResponse:
        """Read a task."""
        self._check(request.task, context)
        return self.tasks[request.task]

    def ForgetTask(
        self, request: pb.ForgetTaskRequest, context: grpc.ServicerContext
    ) -> pb.ForgetTaskResponse:
        """Forget a task."""
        self._check(request.task, context)
        return pb.ForgetTaskResponse(runs=self.tasks.pop(request.task).task.runs)

    def _check(self, task: str, context: grpc.ServicerContext) -> None:
        if task not in self.tasks:
            context.set_trailing_metadata((("mlrs-reason", "ERROR_REASON_NO_TASK"), ("mlrs-field", "task")))
            context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is remembered of {task!r}")
