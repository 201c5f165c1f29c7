"""A daemon beside a plain dictionary: what hypothesis does to one it does to the other, over the wire."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import Policy
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.domain.ledger import DIVERGED_AFTER
from mlrs_server.live.replay import Replay
from tests.support.daemon import Daemon

NAMES = ("a", "b", "c/1", "c/2")
"""Runs that there may be; two of them share a prefix."""
names = st.sampled_from(NAMES)
losses = st.one_of(st.floats(0.01, 10.0), st.floats(width=64))
TIMEOUT_S = 20.0


def durable_of(message: pb.Run | pb.AdviseResponse) -> int:
    """Return the last durable step that a message states; -1 if no step is durable."""
    return message.durable_step if message.HasField("durable_step") else -1


@dataclass
class Wanted:
    """A run of the dictionary."""

    replay: Callable[[], Replay]
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    finished: bool = False
    promised: int = -1
    """The most that was said to survive a crash."""
    handle: int | None = None
    """`None`: it must be opened first."""
    feeder: str = ""
    """The process that opened it last, of those that say who they are."""
    now: Replay | None = None

    def observe(self, loss: float) -> float:
        """Take a loss; return its learning rate."""
        self.now = self.now or self.replay()
        (lr,) = self.now.feed(np.array([loss])).tolist()
        self.losses.append(loss)
        self.lrs.append(lr)
        return float(lr)

    def rewind(self, step: int) -> None:
        """Go back to where a step is next."""
        kept, self.losses, self.lrs, self.now = self.losses[:step], [], [], None
        self.finished, self.promised, self.handle = False, step - 1, None
        for loss in kept:
            self.observe(loss)

    @property
    def status(self) -> int:
        """Where it stands."""
        if self.finished:
            return pb.RUN_STATUS_FINISHED
        last = self.losses[-DIVERGED_AFTER:]
        diverged = len(last) == DIVERGED_AFTER and not any(map(math.isfinite, last))
        return pb.RUN_STATUS_DIVERGED if diverged else pb.RUN_STATUS_ACTIVE

    def reason(self, step: int) -> int:
        """Why its advice for a step is what it is."""
        fresh = math.isfinite(self.losses[step])
        return pb.ADVICE_REASON_FRESH if fresh else pb.ADVICE_REASON_HELD


def bits(values: Iterable[float]) -> list[str]:
    """Return numbers such that NaN equals NaN, and -0 not 0."""
    return [value.hex() for value in values]


class Lifecycles(RuleBasedStateMachine):
    """Runs, created and ended in any order, while the daemon is killed and started again."""

    steps = 0
    """Rules that ran, in all examples."""
    restarts = 0

    def __init__(self, daemon: Daemon, policy: Policy, prefix: str) -> None:
        super().__init__()
        self.daemon = daemon
        self.policy = policy
        self.prefix = prefix
        self.runs: dict[str, Wanted] = {}
        self.quiet = 0
        """Rules since the daemon was last started."""

    @initialize()
    def connect(self) -> None:
        """Open a channel."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(self.daemon.address, options=options)
        self.stub = AdvisorServiceStub(self.channel)

    def teardown(self) -> None:
        """Close it."""
        if hasattr(self, "channel"):
            for name in list(self.runs):
                self.call("DeleteRun", pb.DeleteRunRequest(run_id=self.id(name)))
            self.channel.close()

    @invariant()
    def count(self) -> None:
        """Count rules."""
        type(self).steps += 1
        self.quiet += 1

    def id(self, name: str) -> str:
        """Return a run's id: no two examples share one."""
        return f"{self.prefix}{name}"

    def call(self, method: str, request: Any) -> Any:
        """Make a unary call."""
        return getattr(self.stub, method)(request, timeout=TIMEOUT_S, wait_for_ready=True)

    def attempted(self, method: str, request: Any) -> tuple[Any, str]:
        """Make a unary call; return its response, and why it failed, "" if it did not."""
        try:
            return self.call(method, request), ""
        except grpc.RpcError as error:
            trailing: Any = error
            reason = str(dict(trailing.trailing_metadata() or ()).get("mlrs-reason", error))
            return None, reason.removeprefix("ERROR_REASON_")

    def refused(self, reason: str, method: str, request: Any) -> None:
        """Make a call that must fail, for this reason."""
        _, got = self.attempted(method, request)
        assert got == reason

    def advise(self, name: str, step: int, loss: float) -> Any:
        """Observe a step by the unary call."""
        return self.call("Advise", pb.AdviseRequest(run_id=self.id(name), step=step, loss=loss))

    # -------------------------------------------------------------------------------- opening

    def settings(self, kind: int) -> tuple[pb.RunConfig, Callable[[], Replay]]:
        """Return a config, and a run of it that is alone in the world."""
        if kind == 0:
            return pb.RunConfig(), lambda: Replay(self.policy, RunConfig())
        if kind == 1:
            config = RunConfig(horizon=30, num_classes=10, min_lr=1e-4, max_lr=0.5)
            message = pb.RunConfig(horizon=30, num_classes=10, min_lr=1e-4, max_lr=0.5)
            return message, lambda: Replay(self.policy, config)
        spec = ScheduleSpec(ScheduleKind.GREEDY, base_lr=0.1, patience=1).resolved()
        schedule = pb.Schedule(base_lr=0.1, greedy=pb.Schedule.Greedy(patience=1))
        return pb.RunConfig(schedule=schedule), lambda: Replay(
            schedule_policy(spec), RunConfig(schedule=spec)
        )

    @rule(
        name=names, kind=st.integers(0, 2), mode=st.integers(0, 4), feeder=st.sampled_from(["", "one", "two"])
    )
    def open(self, name: str, kind: int, mode: int, feeder: str) -> None:
        """Create, begin, restart or resume a run, in each mode, as one of two processes or without a word."""
        config, replay = self.settings(kind)
        there = self.runs.get(name)
        request = pb.OpenRunRequest(run_id=self.id(name), mode=mode, feeder=feeder)  # type: ignore[arg-type]
        if there is None or mode == pb.OPEN_MODE_RESTART:
            request.config.CopyFrom(config)
        response, reason = self.attempted("OpenRun", request)
        assert reason in self.outcomes(there, mode, feeder)
        if reason:
            return
        assert response.created == (there is None or mode in {pb.OPEN_MODE_CREATE, pb.OPEN_MODE_RESTART})
        before = there.handle if there is not None else None
        if there is None or mode == pb.OPEN_MODE_RESTART:
            self.runs[name] = Wanted(replay)
        elif mode in {pb.OPEN_MODE_CREATE, pb.OPEN_MODE_BEGIN} and (there.losses or there.finished):
            there.rewind(0)
        wanted = self.runs[name]
        if before and there is not None and there.feeder and feeder not in {"", there.feeder}:
            assert self.is_stale(before)
        wanted.feeder, wanted.handle = feeder or wanted.feeder, response.run_handle
        self.check(name, response.run)

    def outcomes(self, there: Wanted | None, mode: int, feeder: str) -> set[str]:
        """Return what may come of a process that opens a run: reasons to refuse it, "" is none."""
        if there is None:
            return {"RUN_NOT_FOUND"} if mode == pb.OPEN_MODE_RESUME else {""}
        if mode == pb.OPEN_MODE_RESTART:
            return {""}
        if mode in {pb.OPEN_MODE_CREATE, pb.OPEN_MODE_BEGIN}:
            is_own = bool(feeder) and feeder == there.feeder
            if there.losses:  # what was not promised may be stored all the same
                return {"", "RUN_EXISTS"} if is_own and there.promised < 0 else {"RUN_EXISTS"}
            return {""} if is_own or mode == pb.OPEN_MODE_BEGIN else {"RUN_EXISTS"}
        allowed = {"RUN_FINISHED"} if there.finished else {""}
        if mode == pb.OPEN_MODE_RESUME and there.feeder and feeder not in {"", there.feeder}:
            allowed.add("OTHER_FEEDER")  # it may have opened a run just now, and is waited for
        return allowed

    def is_stale(self, handle: int) -> bool:
        """Return whether a handle names no run."""
        message = pb.StreamAdviceRequest(
            observations=pb.Observations(run_handles=[handle], steps=[0], losses=[1.0])
        )
        (response,) = self.stub.StreamAdvice(iter([message]), timeout=TIMEOUT_S, wait_for_ready=True)
        return [error.reason for error in response.advice.errors] == [pb.ERROR_REASON_STALE_HANDLE]

    @rule(some=st.lists(names, min_size=1, max_size=4, unique=True))
    def open_many(self, some: list[str]) -> None:
        """Open several runs in a call: all, or none if one is finished."""
        requests = [pb.OpenRunRequest(run_id=self.id(name)) for name in some]
        request = pb.BatchOpenRunsRequest(requests=requests)
        if any(name in self.runs and self.runs[name].finished for name in some):
            self.refused("RUN_FINISHED", "BatchOpenRuns", request)
            return
        for name, response in zip(some, self.call("BatchOpenRuns", request).responses, strict=True):
            assert response.created == (name not in self.runs)
            wanted = self.runs.setdefault(name, Wanted(self.settings(0)[1]))
            wanted.handle = response.run_handle
            self.check(name, response.run)

    @rule(name=names, step=st.integers(0, 40))
    def rewind(self, name: str, step: int) -> None:
        """Go back to a step, to one that never was, or of a run that never was."""
        request = pb.OpenRunRequest(run_id=self.id(name), resume_from=step)
        wanted = self.runs.get(name)
        if step > (len(wanted.losses) if wanted else 0):
            self.refused("INVALID_FIELD", "OpenRun", request)
            return
        response = self.call("OpenRun", request)
        if wanted is None:
            wanted = self.runs[name] = Wanted(self.settings(0)[1])
        elif step < len(wanted.losses) or wanted.finished:
            wanted.rewind(step)
        wanted.handle = response.run_handle
        self.check(name, response.run)

    # ------------------------------------------------------------------------------ observing

    @rule(name=names, some=st.lists(losses, min_size=1, max_size=12))
    def observe(self, name: str, some: list[float]) -> None:
        """Observe steps one by one."""
        for loss in some:
            wanted = self.runs.get(name)
            step = len(wanted.losses) if wanted else 0
            request = pb.AdviseRequest(run_id=self.id(name), step=step, loss=loss)
            if wanted is None:
                self.refused("RUN_NOT_FOUND", "Advise", request)
            elif wanted.finished:
                self.refused("RUN_FINISHED", "Advise", request)
            else:
                response = self.call("Advise", request)
                assert bits([response.learning_rate]) == bits([wanted.observe(loss)])
                assert response.reason == wanted.reason(step)
                self.promise(wanted, durable_of(response))

    @precondition(lambda self: any(run.losses for run in self.runs.values()))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Observe a step again: with its loss, the recorded answer; with another, a refusal."""
        name, wanted = self.draw_begun(data)
        step = data.draw(st.integers(0, len(wanted.losses) - 1))
        loss = wanted.losses[step]
        response = self.advise(name, step, loss)
        assert response.reason == pb.ADVICE_REASON_REPLAYED
        assert bits([response.learning_rate]) == bits([wanted.lrs[step]])
        other = 1.0 if math.isnan(loss) or loss != 1.0 else 2.0
        self.refused("STALE_STEP", "Advise", pb.AdviseRequest(run_id=self.id(name), step=step, loss=other))

    @precondition(lambda self: any(not run.finished for run in self.runs.values()))
    @rule(data=st.data(), ahead=st.integers(1, 1000))
    def skip_ahead(self, data: st.DataObject, ahead: int) -> None:
        """A step beyond the next is refused, and moves nothing."""
        name = data.draw(st.sampled_from([name for name, run in self.runs.items() if not run.finished]))
        step = len(self.runs[name].losses) + ahead
        self.refused("STEP_AHEAD", "Advise", pb.AdviseRequest(run_id=self.id(name), step=step, loss=1.0))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def stream(self, data: st.DataObject) -> None:
        """Observe steps of several runs in one message, repeats and stale handles among them."""
        message = pb.StreamAdviceRequest()
        expected: list[str] = []
        for _ in range(data.draw(st.integers(1, 12))):
            name = data.draw(st.sampled_from(sorted(self.runs)))
            wanted, loss = self.runs[name], data.draw(losses)
            step = len(wanted.losses)
            if wanted.handle is None:
                expected.append("STALE_HANDLE")
            elif wanted.finished:
                expected.append("RUN_FINISHED")
            elif step and data.draw(st.booleans()):
                step, loss = step - 1, wanted.losses[-1]
                expected += bits([wanted.lrs[-1]])
            else:
                expected += bits([wanted.observe(loss)])
            message.observations.run_handles.append(wanted.handle or 12345)
            message.observations.steps.append(step)
            message.observations.losses.append(loss)
        (response,) = self.stub.StreamAdvice(iter([message]), timeout=TIMEOUT_S, wait_for_ready=True)
        got = bits(response.advice.learning_rates)
        for error in response.advice.errors:
            got[error.index] = pb.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        assert got == expected

    # --------------------------------------------------------------------------------- reading

    @rule(prefix=st.sampled_from(["", "c/", "x"]), status=st.integers(0, 3), size=st.integers(1, 3))
    def list(self, prefix: str, status: int, size: int) -> None:
        """List runs of a prefix and a status, a page at a time."""
        found, token = [], ""
        while True:
            request = pb.ListRunsRequest(
                prefix=self.id(prefix),
                status=status,  # type: ignore[arg-type]
                page_size=size,
                page_token=token,
            )
            page = self.call("ListRuns", request)
            found += [run.run_id for run in page.runs]
            if not (token := page.next_page_token):
                break
        wanted = [name for name, run in self.runs.items() if status in {0, run.status}]
        assert found == sorted(self.id(name) for name in wanted if name.startswith(prefix))

    @rule(name=names, start=st.integers(0, 20))
    def read(self, name: str, start: int) -> None:
        """Read a run, and its record from a step on."""
        if name not in self.runs:
            self.refused("RUN_NOT_FOUND", "GetRun", pb.GetRunRequest(run_id=self.id(name)))
            return
        self.check(name, self.call("GetRun", pb.GetRunRequest(run_id=self.id(name))).run)
        request = pb.WatchRunRequest(run_id=self.id(name), from_step=start)
        parts = list(self.stub.WatchRun(request, timeout=TIMEOUT_S))
        wanted = self.runs[name]
        assert bits(loss for part in parts for loss in part.losses) == bits(wanted.losses[start:])
        assert bits(lr for part in parts for lr in part.learning_rates) == bits(wanted.lrs[start:])
        reasons = [reason for part in parts for reason in part.reasons]
        assert reasons == [wanted.reason(step) for step in range(start, len(wanted.losses))]

    # ---------------------------------------------------------------------------------- ending

    @rule(some=st.lists(names, min_size=1, max_size=3, unique=True), alone=st.booleans())
    def finish(self, some: list[str], alone: bool) -> None:  # noqa: FBT001  # hypothesis calls it
        """Finish runs, in one call or one by one: all, or none if one is missing."""
        some = some[:1] if alone else some
        if alone:
            method, request = "FinishRun", pb.FinishRunRequest(run_id=self.id(some[0]))
        else:
            method = "BatchFinishRuns"
            request = pb.BatchFinishRunsRequest(run_ids=[self.id(name) for name in some])  # type: ignore[assignment]
        if any(name not in self.runs for name in some):
            self.refused("RUN_NOT_FOUND", method, request)
            return
        self.call(method, request)
        for name in some:
            self.runs[name].finished = True
            self.runs[name].promised = len(self.runs[name].losses) - 1

    @rule(name=names)
    def delete(self, name: str) -> None:
        """Delete a run; a second time there is none."""
        request = pb.DeleteRunRequest(run_id=self.id(name))
        if self.runs.pop(name, None) is None:
            self.refused("RUN_NOT_FOUND", "DeleteRun", request)
        else:
            self.call("DeleteRun", request)

    # --------------------------------------------------------------------------------- crashing

    @precondition(lambda self: self.quiet > 20)
    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:  # noqa: FBT001  # hypothesis calls it
        """Kill or stop the daemon; then send again what it did not promise, as a client would."""
        self.quiet = 0
        type(self).restarts += 1
        if kill:
            self.daemon.kill()
        else:
            assert self.daemon.stop() == 0
        self.daemon.start()
        for name, wanted in self.runs.items():
            wanted.handle = None
            at = self.call("GetRun", pb.GetRunRequest(run_id=self.id(name))).run.next_step
            assert (wanted.promised + 1 if kill else len(wanted.losses)) <= at <= len(wanted.losses)
            for step in range(at, len(wanted.losses)):
                response = self.advise(name, step, wanted.losses[step])
                assert bits([response.learning_rate]) == bits([wanted.lrs[step]])

    # --------------------------------------------------------------------------------- comparing

    def draw_begun(self, data: st.DataObject) -> tuple[str, Wanted]:
        """Return a run that has an observation."""
        name = data.draw(st.sampled_from([name for name, run in self.runs.items() if run.losses]))
        return name, self.runs[name]

    def promise(self, wanted: Wanted, durable_step: int) -> None:
        """Remember what is said to survive."""
        assert wanted.promised <= durable_step < len(wanted.losses)
        wanted.promised = durable_step

    def check(self, name: str, run: pb.Run) -> None:
        """Compare a run with the dictionary's."""
        wanted = self.runs[name]
        assert (run.run_id, run.next_step, run.status) == (self.id(name), len(wanted.losses), wanted.status)
        self.promise(wanted, durable_of(run))
        if wanted.losses:
            assert bits([run.last_loss, run.last_learning_rate]) == bits([wanted.losses[-1], wanted.lrs[-1]])
        else:
            assert not run.HasField("last_loss")
