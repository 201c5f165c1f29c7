"""A daemon in this process, for tests of the client: the contract over a real socket, no network in it.

Its learning rates are a simple recurrence of the losses, so that a lost, repeated or reordered
observation shows in every later one. What can go wrong with a daemon is a method: `restart`, `drain`,
`cut`, `lose`, and `may_answer`, an event without which it answers nothing. Several over one `Records` are
replicas, each of which owns what `owners` says and names the owner of the rest.
"""

# ruff: noqa: ARG002, N802 # the contract's names and arguments

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from mlrs.values.signals import SIGNAL_NAMES
from mlrs_proto import v1 as pb
from mlrs_proto.v1 import advisor_service_pb2_grpc as advisor_rpc
from mlrs_proto.v1 import model_service_pb2_grpc as model_rpc
from mlrs_proto.v1 import task_service_pb2_grpc as task_rpc
from tests.client.fake_memory import FakeMemory

CUT, FULL = "cut", "full"
"""In a stream's answers: end it as if the connection was lost."""
TRIED, TRIAL_STEPS = (0.1, 0.3, 0.9), 5
"""The learning rates that a search tries, and the steps of each trial."""
FOUND_OF_BEST = 0.5
"""What a search finds, over the learning rate of its best trial."""


def lr_sequence(losses: list[float], alignments: Mapping[int, float] | None = None) -> list[float]:
    """Return the learning rate of each step, given the alignments of the meta updates before it."""
    state, factor, lrs = 0.0, 1.0, []
    for step, loss in enumerate(losses):
        if math.isfinite(loss):
            state = 0.9 * state + 0.1 * loss
            lrs.append(factor * 0.1 / (1.0 + abs(state)))
        else:
            lrs.append(lrs[-1] if lrs else 0.0)
        factor *= _change((alignments or {}).get(step, 0.0))
    return lrs


def _change(alignment: float) -> float:
    """Return what an update multiplies learning rates by."""
    return math.exp(0.1 * math.tanh(alignment))


def adapted_lr(losses: list[float], alignments: Mapping[int, float], step: int) -> float:
    """Return the learning rate of a step under the weights that its meta update gives."""
    before = {other: alignment for other, alignment in alignments.items() if other < step}
    return lr_sequence(losses, before)[step] * _change(alignments[step])


class TrialRecords:
    """The trials of a search from one start."""

    def __init__(self, start: str, attempt: int, asked: Sequence[tuple[float, int]]) -> None:
        """`asked`: the learning rate and the steps of each trial that the search asks for."""
        self.start, self.attempt, self.asked = start, attempt, asked
        self.results: list[pb.TrialResult] = []

    def take(self, result: pb.TrialResult) -> bool:
        """Record the result of the trial that was asked for; return whether it is of one that was."""
        if result.number == len(self.results) < len(self.asked):
            self.results.append(result)
        return result.number < len(self.results)

    @property
    def found(self) -> pb.FoundRate | None:
        """What the trials have found, if they are complete: half the learning rate of the least loss."""
        if len(self.results) < len(self.asked):
            return None
        made = zip(self.results, self.asked, strict=True)
        losses = [(one.loss if math.isfinite(one.loss) else math.inf, rate) for one, (rate, _) in made]
        return pb.FoundRate(
            learning_rate=FOUND_OF_BEST * min(losses)[1],
            octaves=1.0,
            steps=sum(one.steps for one in self.results),
        )

    def message(self) -> pb.Search:
        """Return it as the contract shows it."""
        made = [
            pb.FinishedTrial(learning_rate=rate, steps=one.steps, loss=one.loss)
            for (rate, _), one in zip(self.asked, self.results, strict=False)
        ]
        search = pb.Search(start=self.start, attempt=self.attempt, trials=made, found=self.found)
        if self.found is None:
            rate, steps = self.asked[len(made)]
            search.trial.CopyFrom(pb.Trial(number=len(made), learning_rate=rate, steps=steps))
        return search


class Extras(NamedTuple):
    """What comes with an observation besides its loss."""

    signals: Mapping[str, float]
    validation: tuple[int, float] | None
    restored: bool = False


def extras_of(asked: pb.Observations) -> dict[int, Extras]:
    """Return what comes with the entries of a message, by index."""
    signals = {
        entry: {name: column[index] for name in SIGNAL_NAMES if (column := getattr(asked.signals, name))}
        for index, entry in enumerate(asked.signals.entries)
    }
    told = asked.validations
    validations = {entry: (told.steps[index], told.losses[index]) for index, entry in enumerate(told.entries)}
    return {
        entry: Extras(signals.get(entry, {}), validations.get(entry), entry in asked.restored)
        for entry in {*signals, *validations, *asked.restored}
    }


class Record:
    """One run."""

    def __init__(self, run_id: str, config: pb.RunConfig, task: str = "", feeder: str = "") -> None:
        self.run_id, self.config, self.task, self.feeder = run_id, config, task, feeder
        self.generation = 0  # of its handles
        self.losses: list[float] = []
        self.extras: dict[int, Extras] = {}  # of the steps that came with any
        self.alignments: dict[int, float] = {}  # of its meta updates, by step
        self.durable_step = -1
        self.finished = False
        self.searches: list[TrialRecords] = []  # what a search reports is durable at once
        self.create_time = time.time()

    def is_new_to(self, feeder: str) -> bool:
        """Return whether a feeder that opens it anew may be one whose answer was lost."""
        return bool(feeder) and feeder == self.feeder and self.durable_step < 0

    def cut(self, step: int) -> None:
        """Lose the observation of a step and all that came later; and the update ahead of it."""
        del self.losses[step:]
        self.extras = {other: extras for other, extras in self.extras.items() if other < step}
        self.alignments = {other: number for other, number in self.alignments.items() if other < step - 1}

    def message(self) -> pb.Run:
        """Return it as the contract shows it."""
        status = pb.RUN_STATUS_FINISHED if self.finished else pb.RUN_STATUS_ACTIVE
        return pb.Run(
            run_id=self.run_id,
            task=self.task,
            config=self.config,
            status=status,
            next_step=len(self.losses),
            durable_step=None if self.durable_step < 0 else self.durable_step,
            create_time=Timestamp(seconds=int(self.create_time), nanos=int(self.create_time % 1 * 1e9)),
            last_learning_rate=lr_sequence(self.losses, self.alignments)[-1] if self.losses else None,
        )


class Records:
    """What replicas share: the runs, and who owns them."""

    def __init__(self) -> None:
        self.runs: dict[str, Record] = {}
        self.owners: dict[str, FakeDaemon] = {}  # by run id; a run that is not here is whoever's is asked
        self.groups: dict[str, str] = {}


class FakeDaemon(advisor_rpc.AdvisorServiceServicer, model_rpc.ModelServiceServicer):
    """All services; `target` is its address, and `memory` what it remembers of tasks.

    Args:
        records: its records; those of replicas are shared.
        token: what calls have to bring.
        credentials: what it encrypts with.
    """

    def __init__(
        self,
        records: Records | None = None,
        *,
        token: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.records = records or Records()
        self.runs = self.records.runs
        self.memory = FakeMemory()
        self.token, self._credentials = token, credentials
        self.opened = 0  # how many calls opened one run
        self.slow_s = 0.0  # how long opening a run takes
        self.refuse_opens: pb.ErrorReason.ValueType | None = None
        self.refuse_next: list[pb.ErrorReason.ValueType] = []
        self.refuse_updates = False
        self.refuse_searches: dict[str, pb.ErrorReason.ValueType] = {}  # by run id
        self.asked: list[pb.SearchTrialRequest] = []  # the calls of searches
        self.trials = [(rate, TRIAL_STEPS) for rate in TRIED]  # what searches ask for
        self.stands_still = False  # nothing is stored
        self.refuse_modes = False  # those that a daemon of an older version does not know
        self.full_opens = 0  # so many calls that open a run find no memory
        self.lost_answers = 0  # so many calls that create or delete a run do so and are cut off
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.entries = 0
        self.chunks: list[int] = []  # the bytes of each chunk of a direction
        self.batches: list[int] = []  # how many runs each batch opened
        self.fallbacks: list[tuple[str, int, int]] = []  # what opens told: the run, the first step, how many
        self.open_s = 0.0  # how long opening a batch takes
        self._lock = threading.Lock()
        self._process = 1  # in every handle
        self._streams: set[SimpleQueue[Any]] = set()
        self._feeders: list[Any] = []  # of the open streams
        self.port = 0
        self.start()

    @property
    def target(self) -> str:
        """The address."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = grpc.server(
            ThreadPoolExecutor(32),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**20 + 2**16)],
        )
        advisor_rpc.add_AdvisorServiceServicer_to_server(self, self._server)
        model_rpc.add_ModelServiceServicer_to_server(self, self._server)
        task_rpc.add_TaskServiceServicer_to_server(self.memory, self._server)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        """Go away as a killed process does: what is not durable is lost."""
        self.may_answer.set()
        for outbox in list(self._streams):
            outbox.put(CUT)
        self._server.stop(0).wait()
        self.lose()

    def lose(self) -> None:
        """Be another process: forget handles and what is not durable."""
        with self._lock:
            self._process += 1
            for record in self.runs.values():
                record.cut(record.durable_step + 1)

    def restart(self) -> None:
        """Be killed and started again."""
        self.stop()
        self.start()

    def tell(self, word: Any) -> None:
        """Put a message, or `CUT`, into every open stream."""
        for outbox in list(self._streams):
            outbox.put(word)

    def cut(self) -> None:
        """Lose every connection."""
        self.tell(CUT)

    def drain(self) -> None:
        """Announce the end on every open stream."""
        self.tell(pb.StreamAdviceResponse(drain=pb.Drain(message="stopping")))

    def own(self, *run_ids: str) -> None:
        """Be the owner of runs, as after a takeover: the others' handles of them are stale."""
        with self._lock:
            self.records.owners.update(dict.fromkeys(run_ids, self))

    def _lose_answer(self, context: grpc.ServicerContext) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    def _check_token(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata()).get("authorization")
        if self.token is not None and sent != f"Bearer {self.token}":
            code, reason = grpc.StatusCode.UNAUTHENTICATED, pb.ERROR_REASON_UNAUTHENTICATED
            _fail(context, code, reason, "no good token")

    def _check_owner(self, run_id: str, context: grpc.ServicerContext) -> None:
        owner = self.records.owners.get(run_id, self)
        if owner is not self:
            context.set_trailing_metadata(
                (("mlrs-reason", "ERROR_REASON_NOT_OWNER"), ("mlrs-owner", owner.target))
            )
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"run {run_id!r} is of another replica")

    def handle(self, run_id: str) -> int:
        """Return the handle of a run in this process."""
        return self._process << 32 | self.runs[run_id].generation << 24 | list(self.runs).index(run_id)

    # --------------------------------------------------------------------------- the contract

    def OpenRun(self, request: pb.OpenRunRequest, context: grpc.ServicerContext) -> pb.OpenRunResponse:
        """Open a run."""
        self._check_token(context)
        time.sleep(self.slow_s)
        with self._lock:
            self.opened += 1
            self._check_owner(request.run_id, context)
            if self.refuse_opens is not None:
                _fail(context, grpc.StatusCode.UNAVAILABLE, self.refuse_opens, "refused by the test double")
            if self.full_opens:
                self.full_opens -= 1
                code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, pb.ERROR_REASON_MEMORY_FULL
                _fail(context, code, reason, "no memory", "model")
            self._check_mode(request, context)
            record = self.runs.get(request.run_id)
            if record is None and request.mode == pb.OPEN_MODE_RESUME:
                _fail(context, grpc.StatusCode.NOT_FOUND, pb.ERROR_REASON_RUN_NOT_FOUND, "no such run")
            generation = 0
            if record is not None and request.mode == pb.OPEN_MODE_RESTART:
                generation, record = record.generation + 1, None
            taken = record is not None and not record.is_new_to(request.feeder)
            begins = request.mode == pb.OPEN_MODE_BEGIN and record is not None and bool(record.losses)
            if taken and (begins or request.mode == pb.OPEN_MODE_CREATE):
                _fail(context, grpc.StatusCode.ALREADY_EXISTS, pb.ERROR_REASON_RUN_EXISTS, "the id is taken")
            took_over = record is not None and self._take_over(record, request, context)
            if record is not None and record.finished and not request.HasField("resume_from"):
                code, reason = grpc.StatusCode.FAILED_PRECONDITION, pb.ERROR_REASON_RUN_FINISHED
                _fail(context, code, reason, "the run is finished")
            created = record is None or (request.mode == pb.OPEN_MODE_CREATE and not record.losses)
            if record is None:
                record = self.runs[request.run_id] = Record(
                    request.run_id, pb.RunConfig(model="fake@00000000"), request.task, request.feeder
                )
                record.generation = generation
            if request.resume_from > len(record.losses):
                code, reason = grpc.StatusCode.INVALID_ARGUMENT, pb.ERROR_REASON_INVALID_FIELD
                _fail(context, code, reason, f"the run has {len(record.losses)} steps", "resume_from")
            self.records.groups.setdefault(request.run_id, request.group)
            _merge(record, request.config, context)
            self.memory.opened(request, record.task, record.config, is_new=not record.losses)
            if request.HasField("resume_from"):
                made = {
                    step: number for step, number in record.alignments.items() if step < request.resume_from
                }
                record.cut(request.resume_from)
                record.finished = False
                record.alignments = made
                record.durable_step = min(record.durable_step, request.resume_from - 1)
            self.fallbacks += _fallback_of(request)
            self._lose_answer(context)
            return pb.OpenRunResponse(
                run=record.message(),
                run_handle=self.handle(request.run_id),
                created=created,
                took_over=took_over,
            )

    def _check_mode(self, request: pb.OpenRunRequest, context: grpc.ServicerContext) -> None:
        if self.refuse_modes and request.mode >= pb.OPEN_MODE_BEGIN:
            code, reason = grpc.StatusCode.INVALID_ARGUMENT, pb.ERROR_REASON_INVALID_FIELD
            _fail(context, code, reason, "mode: must be one of the contract's OpenMode, is 3", "mode")

    def _take_over(self, record: Record, request: pb.OpenRunRequest, context: grpc.ServicerContext) -> bool:
        """Give a run to who opens it; return whether it is taken from one that is connected."""
        if not request.feeder or request.feeder == record.feeder:
            return False
        lives = record.feeder in self._feeders
        if lives and request.mode == pb.OPEN_MODE_RESUME and not request.HasField("resume_from"):
            code, reason = grpc.StatusCode.FAILED_PRECONDITION, pb.ERROR_REASON_OTHER_FEEDER
            _fail(context, code, reason, "another process sends its observations")
        if record.feeder:
            record.generation += 1
        record.feeder = request.feeder
        return lives

    def BatchOpenRuns(
        self, request: pb.BatchOpenRunsRequest, context: grpc.ServicerContext
    ) -> pb.BatchOpenRunsResponse:
        """Open runs, one by one."""
        time.sleep(self.open_s)
        self.batches.append(len(request.requests))
        return pb.BatchOpenRunsResponse(responses=[self.OpenRun(one, context) for one in request.requests])

    def BatchFinishRuns(
        self, request: pb.BatchFinishRunsRequest, context: grpc.ServicerContext
    ) -> pb.BatchFinishRunsResponse:
        """Finish runs, one by one."""
        ones = [pb.FinishRunRequest(run_id=run_id) for run_id in request.run_ids]
        for one, metric in zip(ones, request.metrics, strict=bool(request.metrics)):
            one.metric, one.higher_is_better = metric, request.higher_is_better
        return pb.BatchFinishRunsResponse(runs=[self.FinishRun(one, context).run for one in ones])

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunResponse:
        """Read a run."""
        self._check_token(context)
        record = self._record(request.run_id, context)
        if not self.stands_still:  # answered steps are stored first, as in the daemon
            record.durable_step = len(record.losses) - 1
        return pb.GetRunResponse(run=record.message())

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsResponse:
        """List runs, two a page; by recency, those created last first, and the newest on each page again."""
        ids = [run_id for run_id in self.runs if run_id.startswith(request.prefix)]
        ids = ids[::-1] if request.order_by else sorted(ids)
        start = int(request.page_token or 0)
        end = start + min(request.page_size or 2, 2)
        again = ids[:1] if request.order_by and start else []
        page = [self.runs[run_id].message() for run_id in again + ids[start:end]]
        more = str(end) if end < len(ids) else ""
        return pb.ListRunsResponse(runs=page, next_page_token=more)

    def FinishRun(self, request: pb.FinishRunRequest, context: grpc.ServicerContext) -> pb.FinishRunResponse:
        """Finish a run."""
        self._check_owner(request.run_id, context)
        record = self._record(request.run_id, context)
        if len(record.losses) < request.next_step and not record.finished:
            code, reason = grpc.StatusCode.FAILED_PRECONDITION, pb.ERROR_REASON_STEP_AHEAD
            _fail(context, code, reason, f"the run expects step {len(record.losses)}", "next_step")
        record.finished, record.durable_step = True, len(record.losses) - 1
        self.memory.ends[request.run_id] = request
        return pb.FinishRunResponse(run=record.message())

    def Adapt(self, request: pb.AdaptRequest, context: grpc.ServicerContext) -> pb.AdaptResponse:
        """Make an update."""
        record = self._record(request.run_id, context)
        return pb.AdaptResponse(result=self.adapted(record, request.step, request.alignment))

    def AdaptGradients(self, requests: Any, context: grpc.ServicerContext) -> pb.AdaptGradientsResponse:
        """Compute the dot product of both vectors; make the update of it."""
        header, count, alignment = pb.AdaptGradientsHeader(), 0, 0.0
        for request in requests:
            if request.WhichOneof("kind") == "header":
                header, count = request.header, request.header.element_count
                continue
            chunk = request.chunk
            self.chunks.append(len(chunk.direction))
            ours, theirs = (_elements(chunk, data) for data in (chunk.validation_gradient, chunk.direction))
            alignment += float(ours @ theirs)
            count -= len(ours)
        assert count == 0, "element_count is not what came"
        result = self.adapted(self._record(header.run_id, context), header.step, alignment)
        return pb.AdaptGradientsResponse(result=result, alignment=alignment)

    def DeleteRun(self, request: pb.DeleteRunRequest, context: grpc.ServicerContext) -> pb.DeleteRunResponse:
        """Delete a run."""
        self.runs.pop(self._record(request.run_id, context).run_id)
        self._lose_answer(context)
        return pb.DeleteRunResponse()

    def SearchTrial(
        self, request: pb.SearchTrialRequest, context: grpc.ServicerContext
    ) -> pb.SearchTrialResponse:
        """Take the result of a trial, and say what comes next; what is found makes handles stale."""
        self._check_token(context)
        self.asked.append(request)
        self.may_answer.wait()
        with self._lock:
            self._check_owner(request.run_id, context)
            record = self._record(request.run_id, context)
            if (refusal := self.refuse_searches.get(request.run_id)) is not None:
                _fail(context, grpc.StatusCode.FAILED_PRECONDITION, refusal, "refused by the test double")
            if record.losses:
                code, reason = grpc.StatusCode.FAILED_PRECONDITION, pb.ERROR_REASON_RUN_BEGUN
                _fail(context, code, reason, f"the run is at step {len(record.losses)}")
            if not record.searches or record.searches[-1].start != request.start:
                record.searches.append(TrialRecords(request.start, len(record.searches) + 1, self.trials))
            search = record.searches[-1]
            before = search.found
            if request.HasField("result") and not search.take(request.result):
                code, reason = grpc.StatusCode.INVALID_ARGUMENT, pb.ERROR_REASON_INVALID_FIELD
                _fail(context, code, reason, "it is of another trial", "result")
            if before is None and search.found is not None:
                record.config.found.CopyFrom(search.found)
                record.config.found.charged = request.charge_steps
                record.generation += 1
            self._lose_answer(context)
            return pb.SearchTrialResponse(search=search.message())

    def GetSearch(self, request: pb.GetSearchRequest, context: grpc.ServicerContext) -> pb.GetSearchResponse:
        """Read the newest search of a run."""
        record = self._record(request.run_id, context)
        if not record.searches:
            code, reason = grpc.StatusCode.NOT_FOUND, pb.ERROR_REASON_NO_SEARCH
            _fail(context, code, reason, f"run {request.run_id!r} had no search")
        return pb.GetSearchResponse(search=record.searches[-1].message())

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List the one model there is."""
        model = pb.Model(
            ref="fake@00000000", name="fake", architecture_json='{"hidden_size": 50}', snapshots=3
        )
        return pb.ListModelsResponse(models=[model])

    def WatchRun(self, request: pb.WatchRunRequest, context: grpc.ServicerContext) -> Any:
        """Stream the record of a run, a step a message."""
        record = self._record(request.run_id, context)
        step = request.from_step
        yield pb.WatchRunResponse(run=record.message(), first_step=step)
        while context.is_active():
            if request.follow:
                self._check_owner(request.run_id, context)
            lrs = lr_sequence(record.losses)
            for step in range(step, len(lrs)):  # noqa: B020 # goes on where it stopped
                yield pb.WatchRunResponse(
                    run=record.message(),
                    first_step=step,
                    losses=[record.losses[step]],
                    learning_rates=[lrs[step]],
                    reasons=[pb.ADVICE_REASON_FRESH],
                    restores=[0] * _blew_up(record, record.losses[step]),
                    **self._shown(record.extras.get(step)),
                )
            step = max(step, len(lrs))
            if not request.follow:
                return
            threading.Event().wait(0.01)

    def _shown(self, extras: Extras | None) -> dict[str, Any]:
        if extras is None:
            return {}
        signals = {name: [value] for name, value in extras.signals.items()}
        shown: dict[str, Any] = {"signals": pb.SignalColumns(entries=[0], **signals)} if signals else {}
        if extras.validation is not None:
            step, loss = extras.validation
            shown["validations"] = pb.ValidationColumns(entries=[0], steps=[step], losses=[loss])
        return shown | {"restored": [0] * extras.restored}

    def StreamAdvice(self, requests: Any, context: grpc.ServicerContext) -> Any:
        """Answer observations; a thread reads them, so that `tell` can speak between."""
        self._check_token(context)
        outbox: SimpleQueue[Any] = SimpleQueue()
        self._streams.add(outbox)
        feeder = dict(context.invocation_metadata()).get("mlrs-feeder")
        self._feeders.append(feeder)
        context.add_callback(lambda: self._feeders.remove(feeder))
        threading.Thread(target=self._pump, args=(requests, outbox), daemon=True).start()
        for answer in iter(outbox.get, None):
            if answer is CUT or answer is FULL:
                self._streams.discard(outbox)
            if answer is CUT:
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            if answer is FULL:
                _fail(
                    context,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    pb.ERROR_REASON_QUEUE_FULL,
                    "the queue is full",
                )
            yield answer
        self._streams.discard(outbox)

    def _pump(self, requests: Any, outbox: SimpleQueue[Any]) -> None:
        try:
            for request in requests:
                answer = self._answer(request)
                self.may_answer.wait()
                outbox.put(answer)
        except grpc.RpcError:
            pass
        outbox.put(None)

    def _answer(self, request: pb.StreamAdviceRequest) -> Any:
        if self.refuse_next[:1] == [pb.ERROR_REASON_QUEUE_FULL]:  # the call fails, as the daemon's does
            self.refuse_next.pop(0)
            return FULL
        if request.HasField("meta_updates"):
            return pb.StreamAdviceResponse(meta_results=self._results(request.meta_updates.updates))
        columns, asked = pb.AdviceColumns(), request.observations
        rows, extras = zip(asked.run_handles, asked.steps, asked.losses, strict=True), extras_of(asked)
        for index, (handle, step, loss) in enumerate(rows):
            with self._lock:
                self.entries += 1
                error, lr, reason, durable = self._entry(handle, step, loss, extras.get(index))
            if error is not None:
                error.index = index
                columns.errors.append(error)
            columns.learning_rates.append(lr)
            columns.reasons.append(reason)
            columns.durable_steps.append(durable)
            if error is None and _blew_up(self._of(handle), loss):
                columns.restores.append(index)
        return pb.StreamAdviceResponse(advice=columns)

    def _results(self, updates: Sequence[pb.MetaUpdate]) -> pb.MetaResults:
        answer = pb.MetaResults()
        for index, update in enumerate(updates):
            with self._lock:
                error = self._refusal_of_update(update)
                if error is None:
                    answer.results.append(
                        self.adapted(self._of(update.run_handle), update.step, update.alignment)
                    )
                else:
                    error.index = index
                    answer.results.add()
                    answer.errors.append(error)
        return answer

    def _refusal_of_update(self, update: pb.MetaUpdate) -> pb.EntryError | None:
        error = self._refusal_of_handle(update.run_handle)
        if error is not None:
            return error
        record = self._of(update.run_handle)
        if self.refuse_updates:
            return _refused(pb.ERROR_REASON_RUN_FINISHED)
        if record.alignments.get(update.step) == update.alignment:
            return None
        if update.step != len(record.losses) - 1 or update.step in record.alignments:
            return _refused(pb.ERROR_REASON_STALE_STEP, len(record.losses))
        return None

    def adapted(self, record: Record, step: int, alignment: float) -> pb.MetaResult:
        """Make a meta update, or repeat the word on one that was made."""
        record.alignments.setdefault(step, alignment)
        return pb.MetaResult(
            updates=sum(other <= step for other in record.alignments),
            learning_rate=adapted_lr(record.losses, record.alignments, step),
            outcome=pb.META_OUTCOME_APPLIED,
            log_change=math.log(_change(alignment)),
        )

    def _entry(
        self, handle: int, step: int, loss: float, extras: Extras | None
    ) -> tuple[pb.EntryError | None, float, Any, int]:
        error = self._refusal(handle, step, loss, extras)
        if error is not None:
            return error, math.nan, pb.ADVICE_REASON_UNSPECIFIED, -1
        record = self._of(handle)
        reason = pb.ADVICE_REASON_REPLAYED
        if step == len(record.losses):
            record.losses.append(loss)
            if extras is not None:
                record.extras[step] = extras
            reason = pb.ADVICE_REASON_FRESH if math.isfinite(loss) else pb.ADVICE_REASON_HELD
        return None, lr_sequence(record.losses, record.alignments)[step], reason, record.durable_step

    def _refusal(self, handle: int, step: int, loss: float, extras: Extras | None) -> pb.EntryError | None:
        error = self._refusal_of_handle(handle)
        if error is not None:
            return error
        record = self._of(handle)
        if record.finished:
            return _refused(pb.ERROR_REASON_RUN_FINISHED)
        if step > len(record.losses):
            return _refused(pb.ERROR_REASON_STEP_AHEAD, len(record.losses))
        if step >= len(record.losses):
            return None
        had, told = (one or Extras({}, None) for one in (record.extras.get(step), extras))
        same_loss = str(record.losses[step]) == str(loss)  # NaN is NaN
        same_signals = all(
            math.isnan(value) or had.signals.get(name) == value for name, value in told.signals.items()
        )
        other_validation = told.validation not in (None, had.validation)
        if not same_loss or not same_signals or other_validation or told.restored > had.restored:
            return _refused(pb.ERROR_REASON_STALE_STEP, len(record.losses))
        return None

    def _refusal_of_handle(self, handle: int) -> pb.EntryError | None:
        index = handle & 0xFFFFFF
        is_known = (
            handle >> 32 == self._process
            and index < len(self.runs)
            and list(self.runs.values())[index].generation == handle >> 24 & 0xFF
        )
        if not is_known or self.records.owners.get(self._of(handle).run_id, self) is not self:
            return _refused(pb.ERROR_REASON_STALE_HANDLE)
        return _refused(self.refuse_next.pop(0)) if self.refuse_next else None

    def _of(self, handle: int) -> Record:
        return list(self.runs.values())[handle & 0xFFFFFF]

    def _record(self, run_id: str, context: grpc.ServicerContext) -> Record:
        if run_id not in self.runs:
            _fail(context, grpc.StatusCode.NOT_FOUND, pb.ERROR_REASON_RUN_NOT_FOUND, f"no run {run_id!r}")
        return self.runs[run_id]


def _blew_up(record: Record, loss: float) -> bool:
    """Return whether a loss is a blow-up: any that is not finite, of a run with rescue."""
    return record.config.rescue and not math.isfinite(loss)


def _fallback_of(request: pb.OpenRunRequest) -> list[tuple[str, int, int]]:
    """Return what a request tells of its client's fallback, if anything."""
    told = (request.run_id, request.fallback_from, request.fallback_steps)
    return [told] if request.HasField("fallback_from") else []


def _merge(record: Record, config: pb.RunConfig, context: grpc.ServicerContext) -> None:
    """Take over what the run lacks; refuse what differs, and after the first step what is new."""
    stored = {field.name: value for field, value in record.config.ListFields()}
    for field, value in config.ListFields():
        if field.name == "model" or stored.get(field.name) == value:
            continue
        if record.losses or field.name in stored:
            code, reason = grpc.StatusCode.FAILED_PRECONDITION, pb.ERROR_REASON_CONFIG_MISMATCH
            _fail(context, code, reason, "the run has another value", field.name)
        if field.message_type is None:
            setattr(record.config, field.name, value)
        else:
            getattr(record.config, field.name).CopyFrom(value)


def _elements(chunk: pb.GradientChunk, data: bytes) -> npt.NDArray[np.float64]:
    """Return a vector's elements."""
    if chunk.data_type == pb.DATA_TYPE_BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(data, "<f2" if chunk.data_type == pb.DATA_TYPE_FLOAT16 else "<f4").astype(np.float64)


def _refused(reason: pb.ErrorReason.ValueType, expected: int | None = None) -> pb.EntryError:
    return pb.EntryError(reason=reason, message="refused by the test double", next_step=expected)


def _fail(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: pb.ErrorReason.ValueType,
    message: str,
    field: str = "",
) -> NoReturn:
    context.set_trailing_metadata((("mlrs-reason", pb.ErrorReason.Name(reason)), ("mlrs-field", field)))
    context.abort(code, message)
