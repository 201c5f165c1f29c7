"""How a run begins: with its first step, as what that step says, and once however often it is tried."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest

import mlrs
from mlrs import UnavailableError
from mlrs.adapters import RunState
from mlrs.api.new_ledger import run_ledger
from mlrs.errors import (
    ConfigMismatchError,
    InvalidArgumentError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    RunTakenError,
    UsageError,
)
from mlrs.ledger.ledger import RANK_TIMEOUT_S
from mlrs.values.options import RECORD_TIMEOUT_S
from mlrs_proto import v1 as pb
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon, lr_sequence

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8]


async def begun(advisor: Any, losses: list[float] = LOSSES, **config: Any) -> Any:
    """Return a run with an id that has observed losses, all of which are durable."""
    run = await done(advisor.run("task", id="a", **config))
    for step, loss in enumerate(losses):
        await done(run.next_lr(step, loss))
    return run


def keep(daemon: FakeDaemon) -> None:
    """Make everything durable."""
    for record in daemon.runs.values():
        record.durable_step = len(record.losses) - 1


async def test_each_run_of_a_task_is_new(
    either: Any, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    """A script that is run twice trains two runs of its task, whose ids are printed once each."""
    runs = [await done(either.run("resnet18-cifar10")) for _ in range(2)]
    for run in runs:
        assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]
        await done(run.next_lr(1, 2.0))
    assert [record.task for record in daemon.runs.values()] == ["resnet18-cifar10"] * 2
    assert list(daemon.runs) == [run.id for run in runs]
    for run in runs:
        assert re.fullmatch(r"resnet18-cifar10/[a-z]+-[a-z]+-[0-9a-f]{6}", run.id)
    await done(either.close())
    messages = capfd.readouterr().err.splitlines()
    assert messages == [f"mlrs: run {run.id} at {daemon.target}" for run in runs]


async def test_quiet(either: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """With MLRS_QUIET=1 nothing is printed; a run whose id was given is not printed either way."""
    await begun(either)
    monkeypatch.setenv("MLRS_QUIET", "1")
    await done((await done(either.run("task"))).next_lr(0, 1.0))
    await done(either.close())
    assert capfd.readouterr().err == ""


async def test_a_run_is_opened_by_its_first_step(either: Any, daemon: FakeDaemon) -> None:
    """Asking for a run makes no call; the first observation does, and returns at once."""
    daemon.slow_s = 0.2
    run = await done(either.run("task", id="a"))
    assert not run.is_open
    assert not daemon.runs
    pending = run.observe(0, 2.0)
    assert not pending.done()
    assert await done(pending.lr()) == lr_sequence([2.0])[0]
    assert run.is_open
    assert run.created


async def test_opening_now(either: Any, daemon: FakeDaemon) -> None:
    """`open` opens a run before its first step, once."""
    run = await done(either.run("task", id="a", horizon=9))
    for _ in range(2):
        assert await done(run.open()) is run
    assert daemon.opened == 1
    assert run.config.horizon == 9


async def test_what_needs_it_opens_it(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """The step and the config of a run of the threaded client open it."""
    assert advisor.run("task", id="a").next_step == 0
    assert advisor.run("task", id="b", horizon=9).config.horizon == 9
    assert advisor.run("task", id="c").created
    assert set(daemon.runs) == {"a", "b", "c"}


async def test_what_needs_it_says_so(daemon: FakeDaemon) -> None:
    """Under asyncio, where an attribute cannot wait, it says what to await."""
    async with mlrs.aio.connect(daemon.target) as advisor:
        run = await advisor.run("task", id="a")
        with pytest.raises(UsageError, match=r"await run\.open\(\) first"):
            _ = run.next_step
        await run.open()
        assert run.next_step == 0


async def test_a_run_that_exists(either: Any, daemon: FakeDaemon) -> None:
    """A second script with the id of a run that has steps gets an error, and changes nothing."""
    await begun(either)
    keep(daemon)
    for ask in (lambda run: run.next_lr(0, 9.0), lambda run: run.open()):
        second = await done(either.run("task", id="a"))
        with pytest.raises(RunExistsError, match=r"on_existing='restart'.*'resume'.*resume_from") as caught:
            await done(ask(second))
        assert caught.value.field == "id"
    assert daemon.runs["a"].losses == LOSSES


async def test_a_refusal_is_told_at_the_next_step(either: Any, daemon: FakeDaemon) -> None:
    """A loop that did not ask for the advice of its first step hears at the next why it has no run."""
    await begun(either)
    keep(daemon)
    second = await done(either.run("task", id="a"))
    pending = second.observe(0, 9.0)
    await until(pending.done)
    for _ in range(2):
        with pytest.raises(RunExistsError):
            second.observe(1, 9.0)


async def test_restart(either: Any, daemon: FakeDaemon) -> None:
    """`restart` drops the record, whatever it was, finished and of another config."""
    first = await begun(either, horizon=9)
    await done(first.finish())
    second = await done(either.run("task", id="a", on_existing="restart", horizon=7))
    assert await done(second.next_lr(0, 9.0)) == lr_sequence([9.0])[0]
    assert second.created
    assert (daemon.runs["a"].losses, daemon.runs["a"].config.horizon) == ([9.0], 7)


async def test_resume(either: Any, daemon: FakeDaemon) -> None:
    """`resume` continues where the run is; steps before it are answered from the record."""
    await begun(either, LOSSES[:3])
    second = await done(either.run("task", id="a", on_existing="resume"))
    await done(second.open())
    assert second.next_step == 3
    third = await done(either.run("task", id="a", on_existing="resume"))
    lrs = [await done(third.next_lr(step, loss)) for step, loss in enumerate(LOSSES)]
    assert lrs == lr_sequence(LOSSES)
    assert daemon.runs["a"].losses == LOSSES


async def test_resume_of_a_finished_run(either: Any) -> None:
    """A run that is finished cannot be gone on with."""
    await done((await begun(either)).finish())
    with pytest.raises(RunFinishedError):
        await done((await done(either.run("task", id="a", on_existing="resume"))).next_lr(6, 1.0))


async def test_resume_before_its_step(either: Any) -> None:
    """A loop that is ahead of the run that it resumes gets an error with the run's next step."""
    await begun(either, LOSSES[:3])
    second = await done(either.run("task", id="a", on_existing="resume"))
    with pytest.raises(mlrs.errors.StepAheadError, match="step 5 is ahead; the next step is 3"):
        await done(second.next_lr(5, 1.0))


@pytest.mark.parametrize("said", [True, False])
async def test_going_back(either: Any, daemon: FakeDaemon, *, said: bool) -> None:
    """A loop that begins at a later step of a run goes back to it, whether it says so ahead or not."""
    await done((await begun(either)).finish())
    second = await done(either.run("task", id="a", **({"resume_from": 2} if said else {})))
    assert second.is_open is said
    lrs = [await done(second.next_lr(step, 0.5)) for step in (2, 3)]
    assert lrs == lr_sequence([*LOSSES[:2], 0.5, 0.5])[2:]
    assert daemon.runs["a"].losses == [*LOSSES[:2], 0.5, 0.5]


async def test_nothing_to_go_back_to(either: Any) -> None:
    """A later step than 0 needs a run that exists, and has come that far; a new run begins at step 0."""
    with pytest.raises(RunNotFoundError, match=r"cannot continue at step 4.*begins at step 0"):
        await done((await done(either.run("task", id="a"))).next_lr(4, 1.0))
    await begun(either, LOSSES[:3])
    with pytest.raises(InvalidArgumentError, match="3 steps"):
        await done((await done(either.run("task", id="a"))).next_lr(4, 1.0))
    with pytest.raises(InvalidArgumentError, match=r"begins at step 0, not 4.*give its id"):
        await done((await done(either.run("task"))).next_lr(4, 1.0))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": "!"}, "id"),
        ({"id": "a", "on_existing": "append"}, "on_existing"),
        ({"id": "a", "on_existing": "restart", "resume_from": 3}, "resume_from"),
        ({"resume_from": 3}, "resume_from"),
        ({"on_existing": "resume"}, "on_existing"),
        ({"rank": 0, "world_size": 2}, "id"),
        ({"on_unavailable": "wait"}, "on_unavailable"),
        ({"on_unavailable": "fallback"}, "on_unavailable"),
        ({"on_unavailable": "fallback", "optimizer": "sgd", "fallback": None}, "on_unavailable"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
async def test_bad_beginnings(either: Any, daemon: FakeDaemon, wrong: dict[str, Any], field: str) -> None:
    """What cannot be meant is refused by name, before any call."""
    with pytest.raises(InvalidArgumentError) as caught:
        await done(either.run("task", **wrong))
    assert caught.value.field == field
    assert daemon.opened == 0


@pytest.mark.parametrize("task", ["", "!", "a" * 201, 5])
async def test_bad_tasks(either: Any, task: Any) -> None:
    """A task has a name that ids can be made of."""
    with pytest.raises(InvalidArgumentError) as caught:
        await done(either.run(task))
    assert caught.value.field == "task"


# ---------------------------------------------------------------------------- tried again


async def test_a_daemon_that_is_still_starting(connect: Any, daemon: FakeDaemon) -> None:
    """Opening waits, until its deadline, for a daemon that does not listen yet."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.5)
    run = await done(advisor.run("task", timeout_s=30.0))
    pending = run.observe(0, 2.0)
    await asyncio.sleep(0.1)
    daemon.start()
    assert await done(pending.lr()) == lr_sequence([2.0])[0]
    await done(advisor.close())


async def test_no_daemon(connect: Any, daemon: FakeDaemon) -> None:
    """Without one, opening fails after its deadline, which the error names; it can be tried again."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=5.0)
    run = await done(advisor.run("task", timeout_s=0.2))
    for ask in (lambda: run.next_lr(0, 2.0), run.open):
        with pytest.raises(UnavailableError, match=r"could not be opened within 0\.2 s.*advisor\.run\("):
            await done(ask())
    daemon.start()
    assert await done(run.next_lr(0, 2.0, timeout_s=10.0)) == lr_sequence([2.0])[0]
    await done(advisor.close())


async def test_an_answer_that_was_lost(either: Any, daemon: FakeDaemon) -> None:
    """A run whose opening was carried out, and its answer lost, is opened by the next try."""
    for config in ({}, {"id": "a"}, {"id": "b", "on_existing": "restart"}):
        daemon.lost_answers = 1
        run = await done(either.run("task", **config))
        assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]
    assert [record.losses for record in daemon.runs.values()] == [[2.0]] * 3


async def test_the_same_process_comes_back(either: Any) -> None:
    """A process that opens its run again before step 0 is durable is not taken for a second script."""
    await begun(either, LOSSES[:1])
    again = await done(either.run("task", id="a"))
    assert await done(again.next_lr(0, LOSSES[0])) == lr_sequence(LOSSES[:1])[0]


async def test_two_scripts(
    connect: Any, either: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two live scripts with one run, the newer has it: one gets an error, the other a warning."""
    first = await begun(either, LOSSES[:2], fallback=None)
    keep(daemon)
    other = connect(daemon.target, timeout_s=10.0)
    second = await done(other.run("task", id="a", on_existing="resume", fallback=None))
    assert await done(second.next_lr(2, LOSSES[2])) == lr_sequence(LOSSES[:3])[2]
    await until(lambda: "another process that is still connected sent its observations" in caplog.text)
    with pytest.raises(RunTakenError):
        await done(first.next_lr(2, 7.0))
    assert await done(second.next_lr(3, LOSSES[3])) == lr_sequence(LOSSES[:4])[3]
    assert daemon.runs["a"].losses == LOSSES[:4]
    await done(other.close())


async def test_a_run_that_was_taken_goes_on_alone(
    connect: Any, either: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """A training with a fallback that lost its run to another script continues, with one warning."""
    first = await begun(either, LOSSES[:2])
    keep(daemon)
    last = lr_sequence(LOSSES[:2])[1]
    other = connect(daemon.target, timeout_s=10.0)
    await done((await done(other.run("task", id="a", on_existing="restart"))).next_lr(0, 1.0))
    assert [await done(first.next_lr(step, 7.0)) for step in range(2, 6)] == [last] * 4
    await until(lambda: "cannot be advised any more" in caplog.text)
    assert caplog.text.count("cannot be advised any more") == 1
    assert daemon.runs["a"].losses == [1.0]
    await done(other.close())


# ------------------------------------------------------------------- without a daemon at first


async def test_beginning_without_a_daemon(
    connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """With `on_unavailable="fallback"` training begins; the run is opened and filled in later."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.1)
    run = await done(advisor.run("task", id="a", optimizer="adam", on_unavailable="fallback"))
    lrs = [await done(run.next_lr(step, loss)) for step, loss in enumerate(LOSSES[:4])]
    assert lrs == [1e-3] * 4
    assert not run.is_open
    daemon.start()
    run.observe(4, LOSSES[4])
    await until(lambda: bool(daemon.runs) and len(daemon.runs["a"].losses) == 5)
    await until(lambda: len(caplog.records) == 2)
    assert await done(run.next_lr(5, LOSSES[5], timeout_s=10.0)) == lr_sequence(LOSSES)[5]
    assert daemon.runs["a"].losses == LOSSES
    await done(run.finish(timeout_s=10.0))
    await done(advisor.close())
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "no advice in time" in messages[0]
    assert "the daemon is back and has every loss" in messages[1]


@pytest.mark.parametrize(
    ("config", "lr"),
    [
        ({"initial_lr": 0.5}, 0.5),
        ({"optimizer": "sgd"}, 0.1),
        ({"optimizer": "momentum", "momentum": 0.75}, 0.025),
        ({"optimizer": "adamw"}, 1e-3),
        ({"fallback": lambda step: 0.25 + step}, 0.25),
    ],
)
async def test_what_it_begins_with(
    connect: Any, daemon: FakeDaemon, config: dict[str, Any], lr: float
) -> None:
    """The fallback begins with its own learning rate, the initial LR, or the default one of the optimizer."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.05)
    run = await done(advisor.run("task", on_unavailable="fallback", **config))
    assert await done(run.next_lr(0, 2.0)) == pytest.approx(lr)
    await done(advisor.close())


@pytest.mark.parametrize("spoil", ["taken", "finished", "config"])
async def test_opened_late_and_taken(
    connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    """A run that proves another's when it is opened late warns, and falls back to the end."""
    other = connect(daemon.target, timeout_s=10.0)
    run = await done(other.run("task", id="a", horizon=9))
    for step, loss in enumerate(LOSSES if spoil != "config" else []):
        await done(run.next_lr(step, loss))
    await done(run.open())
    if spoil == "finished":
        await done(run.finish())
    keep(daemon)
    await done(other.close())
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.1)
    late = await done(
        advisor.run("task", id="a", horizon=8, on_unavailable="fallback", optimizer="sgd", timeout_s=0.1)
    )
    assert await done(late.next_lr(0, 1.0)) == pytest.approx(0.1)
    daemon.start()
    step = 1
    while not any("cannot be advised any more" in record.message for record in caplog.records):
        assert await done(late.next_lr(step, 1.0)) == pytest.approx(0.1)
        step += 1
        await asyncio.sleep(0.01)
    assert await done(late.next_lr(step, 1.0)) == pytest.approx(0.1)
    assert sum("cannot be advised any more" in record.message for record in caplog.records) == 1
    assert daemon.runs["a"].losses == ([] if spoil == "config" else LOSSES)
    await done(advisor.close())


async def test_what_is_wrong_at_once_is_raised(either: Any) -> None:
    """Where the daemon answers, what is wrong with the run is an error with a fallback, too."""
    await done((await done(either.run("task", id="a", horizon=9))).open())
    run = await done(either.run("task", id="a", horizon=8, optimizer="sgd", on_unavailable="fallback"))
    with pytest.raises(ConfigMismatchError):
        await done(run.next_lr(0, 1.0))


async def test_no_room_is_told_at_once(either: Any, daemon: FakeDaemon) -> None:
    """A daemon without memory for a new run says so at once, rather than at the deadline."""
    daemon.full_opens = 1
    run = await done(either.run("task", timeout_s=60.0))
    with pytest.raises(mlrs.errors.MemoryFullError):
        await done(run.open())


async def test_adopting(either: Any, daemon: FakeDaemon) -> None:
    """A run continues as another one at a step of it; if that cannot be, it stays what it is."""
    await begun(either)
    run = await done(either.run("task"))
    await done(run.next_lr(0, 3.0))
    own = run.id
    with pytest.raises(RunNotFoundError):
        await done(run.resume(RunState("gone", 3)))
    assert await done(run.next_lr(1, 3.0)) == lr_sequence([3.0, 3.0])[1]
    await done(run.resume(RunState("a", 2)))
    assert (run.id, run.next_step) == ("a", 2)
    assert await done(run.next_lr(2, 5.0)) == lr_sequence([*LOSSES[:2], 5.0])[2]
    assert (daemon.runs["a"].losses, daemon.runs[own].losses) == ([*LOSSES[:2], 5.0], [3.0, 3.0])


async def test_adopting_without_a_daemon(connect: Any, either: Any, daemon: FakeDaemon) -> None:
    """A checkpoint that is loaded while the daemon is away continues with its last learning rate."""
    await begun(either, optimizer="sgd")
    keep(daemon)
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.1)
    run = await done(advisor.run("task", on_unavailable="fallback", optimizer="sgd"))
    await done(run.resume(RunState("a", 3, last_lr=0.75)))
    assert await done(run.next_lr(3, 9.0)) == 0.75
    daemon.start()
    assert await done(run.next_lr(4, 9.0)) == 0.75
    await until(lambda: len(daemon.runs["a"].losses) == 5)
    await done(run.finish(timeout_s=10.0))
    assert daemon.runs["a"].losses == [*LOSSES[:3], 9.0, 9.0]
    await done(advisor.close())


async def test_a_sweep_that_exists(either: Any, daemon: FakeDaemon) -> None:
    """The rules hold for every run of a sweep; it is opened at once."""
    ids = ["a", "b"]
    sweep = await done(either.sweep(ids))
    await done(sweep.next_lrs(0, [1.0, 2.0]))
    keep(daemon)
    with pytest.raises(RunExistsError):
        await done(either.sweep(ids))
    assert (await done(either.sweep(ids, on_existing="resume"))).next_step == 1
    anew = await done(either.sweep(ids, on_existing="restart"))
    assert anew.next_step == 0
    assert (await done(anew.next_lrs(0, [3.0, 2.0]))).tolist() == [lr_sequence([x])[0] for x in (3.0, 2.0)]


def test_the_contract_has_what_is_sent(daemon: FakeDaemon, advisor: mlrs.Advisor) -> None:
    """A run is opened with its task, and by the process that is named with the stream."""
    asked: list[pb.OpenRunRequest] = []
    create = daemon.OpenRun

    def noted(request: pb.OpenRunRequest, context: Any) -> Any:
        asked.append(request)
        return create(request, context)

    daemon.OpenRun = noted  # type: ignore[method-assign]
    daemon.restart()
    for run_id in ("a", "b"):
        advisor.run("task", id=run_id).next_lr(0, 1.0)
    advisor.run("task", id="c", rank=0, world_size=1).open()
    assert {request.task for request in asked} == {"task"}
    assert asked[0].feeder == asked[1].feeder != ""
    assert asked[2].feeder == ""
    assert asked[0].feeder in daemon._feeders


async def test_what_bounds_the_opening_and_the_steps(connect: Any, daemon: FakeDaemon) -> None:
    """An opening that no daemon answers in time says which timeout bounds it, and which ones bound steps."""
    advisor = connect(daemon.target, timeout_s=20.0)
    daemon.stop()
    run = await done(advisor.run("task", id="a", timeout_s=0.3))
    with pytest.raises(UnavailableError, match=r"could not be opened within 0\.3 s") as caught:
        await done(run.next_lr(0, 2.0))
    assert "timeout_s of advisor.run(...) says how long opening may take" in str(caught.value)
    assert "that of connect(...), or of a call, how long each step may" in str(caught.value)
    await done(advisor.close())


COMPILED = {"meta": mlrs.Meta(), "rescue": True, "model": "paper"}
"""Options for which a daemon may have to compile code."""


def test_how_long_calls_wait_by_default() -> None:
    """Opening may take as long as replaying or compiling, a rank's call as long as collectives do."""

    def deadline_s(*, is_open: bool = False, **options: Any) -> float | None:
        ledger = run_ledger(threading.Condition(), 2.0, "task", id="a", **options)
        ledger.is_open = is_open
        return ledger.patience_s(None)

    assert deadline_s() == 2.0
    assert deadline_s(resume_from=7) == RECORD_TIMEOUT_S
    assert deadline_s(resume_from=7, timeout_s=3.0) == 3.0
    assert [deadline_s(**{name: value}) for name, value in COMPILED.items()] == [RECORD_TIMEOUT_S] * 3
    assert deadline_s(rescue=True, timeout_s=3.0) == 3.0
    assert deadline_s(is_open=True) is None  # the advisor's
    assert deadline_s(is_open=True, rank=0, world_size=2) == RANK_TIMEOUT_S


async def test_begun_without_knowing_where_the_run_is(
    connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop that continues with a run, and had to guess its step, does not spoil its record."""
    await begun(connect(daemon.target, timeout_s=10.0), LOSSES[:3], optimizer="sgd")
    keep(daemon)
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.1)
    run = await done(
        advisor.run("task", id="a", on_existing="resume", optimizer="sgd", on_unavailable="fallback")
    )
    assert await done(run.next_lr(0, 9.0)) == pytest.approx(0.1)
    daemon.start()
    step = 1
    while "cannot be advised any more" not in caplog.text:
        assert await done(run.next_lr(step, 9.0)) == pytest.approx(0.1)
        step += 1
        await asyncio.sleep(0.01)
    assert "it is at step 3, and this training began with step 0" in caplog.text
    assert daemon.runs["a"].losses == LOSSES[:3]
    await done(advisor.close())


async def test_a_checkpoint_of_step_0_of_a_run_with_an_id(either: Any, daemon: FakeDaemon) -> None:
    """It goes back to step 0, also where the run's id was given."""
    await begun(either)
    keep(daemon)
    run = await done(either.run("task", id="a"))
    await done(run.resume(RunState("a", 0)))
    await done(run.next_lr(0, 9.0))
    assert daemon.runs["a"].losses == [9.0]


@pytest.mark.parametrize("step", [2, 4])
async def test_going_back_in_an_outage(connect: Any, daemon: FakeDaemon, step: int) -> None:
    """A training that goes back while the daemon is away leaves no trace of what it dropped."""
    advisor = connect(daemon.target, timeout_s=0.1)
    run = await begun(advisor, LOSSES[:3])
    keep(daemon)
    daemon.stop()
    for later, loss in enumerate(LOSSES[3:], 3):
        await done(run.next_lr(later, loss))
    await done(run.resume(RunState("a", step)))
    assert run._ledger.next_step == step
    await done(run.next_lr(step, 7.0))
    daemon.start()
    await done(run.finish(timeout_s=10.0))
    assert daemon.runs["a"].losses == [*LOSSES[:step], 7.0]
    await done(advisor.close())


async def test_a_run_that_is_gone(connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """A training whose run the daemon has no more, as its store was emptied, continues without it."""
    advisor = connect(daemon.target, timeout_s=0.3)
    run = await begun(advisor, LOSSES[:2])
    daemon.stop()
    daemon.runs.clear()
    daemon.start()
    last = lr_sequence(LOSSES[:2])[1]
    while "cannot be advised any more" not in caplog.text:
        assert await done(run.next_lr(run._ledger.next_step, 7.0)) == last
        await asyncio.sleep(0.01)
    assert await done(run.next_lr(run._ledger.next_step, 7.0)) == last
    await done(advisor.close())


async def test_a_daemon_of_an_older_version(either: Any, daemon: FakeDaemon) -> None:
    """A daemon that does not know a mode of opening gives another error than a wrong argument."""
    daemon.refuse_modes = True
    with pytest.raises(mlrs.errors.NotBuiltError, match="upgrade the daemon"):
        await done((await done(either.run("task", id="a"))).next_lr(0, 1.0))


async def test_a_rank_cannot_restart(either: Any) -> None:
    """A rank that restarted the run would drop what the others have observed of it."""
    with pytest.raises(InvalidArgumentError) as caught:
        await done(either.run("task", id="a", rank=1, world_size=2, on_existing="restart"))
    assert caught.value.field == "on_existing"


async def test_the_same_run_twice_in_one_process(either: Any, daemon: FakeDaemon) -> None:
    """A run that is opened again in its process continues there; the one before is refused, for good."""
    first = await begun(either, LOSSES[:3])
    keep(daemon)
    second = await done(either.run("task", id="a", resume_from=2))
    await done(second.next_lr(2, 7.0))
    for _ in range(2):
        with pytest.raises(UsageError, match="opened again in this process"):
            await done(first.next_lr(3, 1.0))
    await done(second.next_lr(3, 7.0))
    assert daemon.runs["a"].losses == [*LOSSES[:2], 7.0, 7.0]


def test_settings_that_a_sweep_does_not_have(advisor: mlrs.Advisor) -> None:
    """A setting that is misspelt, or that only a run has, is named."""
    for name in ("horizn", "on_unavailable"):
        with pytest.raises(InvalidArgumentError) as caught:
            advisor.sweep(["a", "b"], **{name: 3})
        assert caught.value.field == name


async def test_an_option_that_there_is_not(either: Any, daemon: FakeDaemon) -> None:
    """An option that is misspelt is refused before anything is sent, and the error lists those there are."""
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=r"is no option; .*, horizon,") as caught:
        either.run("task", horizn=10)
    assert caught.value.field == "horizn"
    with pytest.raises(mlrs.errors.InvalidArgumentError, match="is no option"):
        either.sweep(["a", "b"], horizn=[10, 20])
    assert not daemon.runs
