"""What no daemon got by the end of a training: nothing is lost that a push does not bring back."""

from __future__ import annotations

import json
import logging
import math
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlrs
from mlrs import Meta
from mlrs.errors import InvalidArgumentError, RunExistsError, RunNotFoundError, StaleStepError
from mlrs.ledger.outcome import Outcome
from mlrs.types import RunConfig, SignalRecord, Signals, ValidationRecord
from mlrs.wire.unsent import default_folder, load
from mlrs.wire.unsent_format import (
    NO_OUTCOME,
    PLAIN,
    VERSION,
    WITH_OUTCOME,
    WITH_RESTORED,
    WITH_SIGNALS,
    Unsent,
    UnsentUpdate,
    dumped,
    loaded,
)
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon

LOSSES = [2.0, 1.5, math.nan, 1.2, -0.5, math.inf, 0.9, 0.8]
floats = st.floats(allow_nan=True, allow_infinity=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files go."""
    return tmp_path / "unsent"


@pytest.fixture
def start(connect: Any, daemon: FakeDaemon, folder: Path) -> Any:
    """Return what connects with a short deadline."""
    return lambda: connect(daemon.target, timeout_s=0.2, unsent_dir=folder)


def files(folder: Path) -> list[Path]:
    """Return what is in a folder."""
    return list(folder.iterdir()) if folder.exists() else []


def same(ours: list[float], theirs: list[float]) -> bool:
    """Return whether losses are the same; NaN is NaN."""
    return list(map(repr, ours)) == list(map(repr, theirs))


async def pushed(
    connect: Any, daemon: FakeDaemon, path: Path, advisor_timeout_s: float = 10.0, **options: Any
) -> Any:
    """Push a file, as a person does later."""
    advisor = connect(daemon.target, timeout_s=advisor_timeout_s)
    try:
        return await done(advisor.push(path, **options))
    finally:
        await done(advisor.close())


async def test_a_training_that_ends_without_its_daemon(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Finishing while the daemon is away warns, and leaves a file that brings back every bit."""
    advisor = start()
    run = await done(advisor.run("task", id="a/b", horizon=9))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.runs["a/b"].durable_step = 0
    await done(run.next_lr(1, LOSSES[1]))
    daemon.stop()
    for step, loss in enumerate(LOSSES[2:], 2):
        await done(run.next_lr(step, loss))
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = files(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (said,) = [record.message for record in caplog.records if "does not have" in record.message]
    assert "steps 1 to 7 and the end of the run" in said
    assert said.endswith(f"mlrs runs push {path} --address {daemon.target}")
    assert len(caplog.records) == 3  # of the loss that is NaN, when the fallback began, and this
    daemon.start()
    (info,) = await pushed(connect, daemon, path)
    assert (info.id, info.status, info.next_step) == ("a/b", "finished", 8)
    assert same(daemon.runs["a/b"].losses, LOSSES)
    assert not path.exists()


async def test_a_training_that_never_saw_its_daemon(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """A run that was never opened is made of its file, with its config."""
    daemon.stop()
    advisor = start()
    run = await done(advisor.run("task", horizon=9, optimizer="adam", on_unavailable="fallback"))
    for step, loss in enumerate(LOSSES):
        assert await done(run.next_lr(step, loss)) == 1e-3
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    (info,) = await pushed(connect, daemon, path, keep=True)
    assert (info.id, info.status, info.next_step) == (run.id, "finished", 8)
    assert path.exists()
    record = daemon.runs[run.id]
    assert same(record.losses, LOSSES)
    assert (record.task, record.config.horizon) == ("task", 9)


async def test_a_push_can_be_tried_again(start: Any, connect: Any, daemon: FakeDaemon, folder: Path) -> None:
    """A push that was broken off half-way continues where it was."""
    daemon.stop()
    advisor = start()
    run = await done(advisor.run("task", id="a", optimizer="adam", on_unavailable="fallback"))
    for step, loss in enumerate(LOSSES):
        await done(run.next_lr(step, loss))
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    daemon.may_answer.clear()
    with pytest.raises(mlrs.errors.DeadlineExceededError):
        await pushed(connect, daemon, path, advisor_timeout_s=0.5, timeout_s=0.5)
    assert path.exists()
    daemon.may_answer.set()
    daemon.runs["a"].cut(3)
    daemon.runs["a"].durable_step = 2
    (info,) = await pushed(connect, daemon, path)
    assert (info.status, info.next_step) == ("active", 8)
    assert same(daemon.runs["a"].losses, LOSSES)


async def test_leaving_without_finishing(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing an advisor writes the observations that no daemon has to a file."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.stop()
    await done(run.next_lr(1, LOSSES[1]))
    await done(advisor.close())
    (path,) = files(folder)
    assert sum("steps 0 to 1 " in record.message for record in caplog.records) == 1
    daemon.start()
    (info,) = await pushed(connect, daemon, path)
    assert (info.status, info.next_step) == ("active", 2)


async def test_nothing_is_left_of_a_healthy_run(
    start: Any, daemon: FakeDaemon, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the daemon answers to the end there is no file and no warning of one, finished or not."""
    advisor = start()
    for run_id in ("a", "b"):
        run = await done(advisor.run("task", id=run_id))
        pendings = [run.observe(step, loss) for step, loss in enumerate(LOSSES)]
        if run_id == "a":
            assert (await done(run.finish(timeout_s=10.0))).status == "finished"
    await until(pendings[-1].done)
    await done(advisor.close())
    assert not files(folder)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("the loss of step 2 is nan" in warning for warning in warnings)
    assert len(daemon.runs["b"].losses) == len(LOSSES)


async def test_finishing_again(start: Any, daemon: FakeDaemon, folder: Path) -> None:
    """A run that could not be finished can be once the daemon is back, and its file goes."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.stop()
    assert await done(run.finish()) is None
    assert files(folder)
    daemon.start()
    info = await done(run.finish(timeout_s=10.0))
    assert (info.status, info.next_step) == ("finished", 1)
    assert not files(folder)
    await done(advisor.close())
    assert not files(folder)


async def test_without_a_fallback_it_raises(start: Any, daemon: FakeDaemon) -> None:
    """A run without a fallback raises here, too."""
    advisor = start()
    run = await done(advisor.run("task", id="a", fallback=None))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.stop()
    with pytest.raises((mlrs.UnavailableError, mlrs.errors.DeadlineExceededError)):
        await done(run.finish())
    await done(advisor.close())


async def test_a_run_that_was_taken_is_pushed_as_another(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The losses of a training whose id proved taken are in a file, and become a run with another id."""
    other = connect(daemon.target, timeout_s=10.0)
    await done((await done(other.run("task", id="a"))).next_lr(0, 7.0))
    daemon.runs["a"].durable_step = 0
    await done(other.close())
    daemon.stop()
    advisor = start()
    run = await done(advisor.run("task", id="a", optimizer="sgd", on_unavailable="fallback"))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.start()
    await until(lambda: "cannot be advised any more" in caplog.text)
    for step, loss in enumerate(LOSSES[1:], 1):
        await done(run.next_lr(step, loss))
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = files(folder)
    with pytest.raises(RunExistsError, match="--id"):
        await pushed(connect, daemon, path)
    assert path.exists()
    (info,) = await pushed(connect, daemon, path, id="b")
    assert (info.id, info.status) == ("b", "finished")
    assert same(daemon.runs["b"].losses, LOSSES)
    assert daemon.runs["a"].losses == [7.0]


async def test_a_run_that_went_on_otherwise(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """A file whose run continued with other losses is refused, and stays."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, LOSSES[0]))
    daemon.runs["a"].durable_step = 0
    daemon.stop()
    await done(run.next_lr(1, LOSSES[1]))
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    daemon.runs["a"].losses.append(9.0)
    with pytest.raises(StaleStepError):
        await pushed(connect, daemon, path)
    daemon.runs.clear()
    with pytest.raises(RunNotFoundError):
        await pushed(connect, daemon, path)
    assert path.exists()


async def left_behind(start: Any, daemon: FakeDaemon, folder: Path, losses: list[float], at: int) -> Path:
    """Train a run whose daemon goes away at a step; return the file of the rest."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    for step, loss in enumerate(losses):
        if step == at:
            daemon.runs["a"].durable_step = at - 1
            daemon.stop()
        await done(run.next_lr(step, loss))
    await done(run.finish())
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    return path


async def test_nothing_is_taken_of_a_file_that_does_not_fit(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """Where another process continued with the run, or restarted it, a push changes nothing."""
    path = await left_behind(start, daemon, folder, [1.0, 2.0, 3.0, 4.0, 5.0], 2)
    daemon.runs["a"].losses += [8.0, 9.0]
    with pytest.raises(StaleStepError, match="--rewind"):
        await pushed(connect, daemon, path)
    assert daemon.runs["a"].losses == [1.0, 2.0, 8.0, 9.0]
    (info,) = await pushed(connect, daemon, path, rewind=True, keep=True)
    assert info.status == "finished"
    assert daemon.runs["a"].losses == [1.0, 2.0, 3.0, 4.0, 5.0]
    other = connect(daemon.target, timeout_s=10.0)
    run = await done(other.run("task", id="a", on_existing="restart"))
    for step in range(4):
        await done(run.next_lr(step, 7.0))
    await done(other.close())
    with pytest.raises(RunExistsError, match="begun anew"):
        await pushed(connect, daemon, path)
    assert daemon.runs["a"].losses == [7.0] * 4


async def test_a_push_that_was_done_can_be_made_again(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """Where the word of its end was lost, the second push finds everything there."""
    path = await left_behind(start, daemon, folder, [1.0, 2.0, 3.0], 1)
    for keep in (True, False):
        (info,) = await pushed(connect, daemon, path, keep=keep)
        assert (info.status, info.next_step) == ("finished", 3)
    assert not path.exists()


async def test_a_checkpoint_of_an_outage_that_does_not_end(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """A training that went back to a step without its daemon can be sent by who wants that."""
    first = connect(daemon.target, timeout_s=10.0)
    run = await done(first.run("task", id="a"))
    for step in range(4):
        await done(run.next_lr(step, 1.0))
    daemon.runs["a"].durable_step = 3
    await done(first.close())
    daemon.stop()
    advisor = start()
    config = {"id": "a", "resume_from": 2, "optimizer": "sgd", "on_unavailable": "fallback", "timeout_s": 0.1}
    run = await done(advisor.run("task", **config))
    for step in (2, 3):
        await done(run.next_lr(step, 5.0))
    await done(run.finish())
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    daemon.runs["a"].config.optimizer = 1
    with pytest.raises(StaleStepError, match="--rewind"):
        await pushed(connect, daemon, path)
    await pushed(connect, daemon, path, rewind=True)
    assert daemon.runs["a"].losses == [1.0, 1.0, 5.0, 5.0]


async def test_a_training_that_never_went_on_leaves_nothing(
    start: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """A loop that was refused its first step has no training to keep."""
    daemon.stop()
    advisor = start()
    run = await done(advisor.run("task"))
    with pytest.raises(mlrs.UnavailableError):
        await done(run.next_lr(0, 1.0))
    await done(advisor.close())
    assert not files(folder)


async def test_closing_while_a_run_is_joined_again_keeps_everything(
    start: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """Observations that wait for a running attempt to join are written, too."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, 1.0))
    daemon.runs["a"].durable_step = 0
    daemon.slow_s = 0.5  # every opening from here on is under way for long
    daemon.cut()
    for step in range(1, 9):
        await done(run.next_lr(step, 1.0))
    await done(advisor.close())
    (path,) = files(folder)
    assert [len(losses) for losses in load(path).losses] == [1] * 9
    daemon.slow_s = 0.0


async def test_closing_waits_until_everything_is_stored(start: Any, daemon: FakeDaemon, folder: Path) -> None:
    """A loop that ends right after its last step, unfinished, leaves nothing that a daemon could lose."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    for step in range(5):
        await done(run.next_lr(step, 1.0))
    await done(advisor.close())
    assert not files(folder)
    daemon.restart()
    assert daemon.runs["a"].losses == [1.0] * 5


async def test_closing_while_nothing_is_stored(start: Any, daemon: FakeDaemon, folder: Path) -> None:
    """Where the daemon answers, and cannot store, what it answered goes to a file."""
    daemon.stands_still = True
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    for step in range(5):
        await done(run.next_lr(step, 1.0))
    await done(advisor.close())
    (path,) = files(folder)
    assert load(path).losses == ((1.0,),) * 5


async def test_meta_updates_are_in_their_places(
    start: Any, connect: Any, daemon: FakeDaemon, folder: Path
) -> None:
    """The meta updates of a run in meta mode come back between its observations."""
    daemon.stop()
    advisor = start()
    meta = {"meta": Meta(every=1), "optimizer": "sgd", "on_unavailable": "fallback"}
    run = await done(advisor.run("task", id="a", **meta))
    for step, loss in enumerate([2.0, 1.0, 0.5]):
        await done(run.next_lr(step, loss))
        await done(run.adapt(step, 0.5 + step, validation_loss=0.25))
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    await pushed(connect, daemon, path)
    assert daemon.runs["a"].alignments == {0: 0.5, 1: 1.5, 2: 2.5}
    assert daemon.runs["a"].losses == [2.0, 1.0, 0.5]


async def test_a_sweep(start: Any, connect: Any, daemon: FakeDaemon, folder: Path) -> None:
    """The runs of a sweep are in one file."""
    advisor = start()
    sweep = await done(advisor.sweep(["a", "b"], horizon=9))
    await done(sweep.next_lrs(0, [1.0, 2.0]))
    daemon.stop()
    for step in (1, 2):
        await done(sweep.next_lrs(step, np.array([1.0, math.nan]) / step))
    assert await done(sweep.finish()) is None
    await done(advisor.close())
    (path,) = files(folder)
    daemon.start()
    with pytest.raises(InvalidArgumentError, match="2 runs, which keep their ids"):
        await pushed(connect, daemon, path, id="c")
    infos = await pushed(connect, daemon, path)
    assert [(info.id, info.status, info.next_step) for info in infos] == [
        ("a", "finished", 3),
        ("b", "finished", 3),
    ]
    assert same(daemon.runs["b"].losses, [2.0, math.nan, math.nan])


async def test_ranks_keep_nothing(start: Any, daemon: FakeDaemon, folder: Path) -> None:
    """The loss of one rank of several is no observation of the run, and is not written."""
    advisor = start()
    run = await done(advisor.run("task", id="a", rank=0, world_size=1))
    await done(run.next_lr(0, 1.0))
    daemon.stop()
    run.observe(1, 1.0)
    with pytest.raises((mlrs.UnavailableError, mlrs.errors.DeadlineExceededError)):
        await done(run.finish())
    await done(advisor.close())
    assert not files(folder)


async def test_not_kept(connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """With an empty folder nothing is written, and the warning says that it is lost."""
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir="")
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, 1.0))
    daemon.stop()
    assert await done(run.finish()) is None
    await done(advisor.close())
    assert "It is lost with this process" in caplog.text


async def test_a_folder_that_cannot_be_written(
    connect: Any, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Where the folder cannot be made the file goes to the temporary folder."""
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=tmp_path / "file" / "unsent")
    run = await done(advisor.run("task", id="a"))
    await done(run.next_lr(0, 1.0))
    daemon.stop()
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = files(tmp_path / "temporary")
    assert f"mlrs runs push {path}" in caplog.text


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the one that the environment names, else in the user's state folder."""
    monkeypatch.delenv("MLRS_UNSENT_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == "/home/somebody/.local/state/mlrs/unsent"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_folder() == "/state/mlrs/unsent"
    monkeypatch.setenv("MLRS_UNSENT_DIR", "/here")
    assert default_folder() == "/here"


updates = st.builds(
    UnsentUpdate,
    step=st.integers(0, 9),
    alignments=st.tuples(floats, floats),
    validation_losses=st.sampled_from([(), (None, 0.5), (0.1, 0.2)]),
)
signals = st.builds(
    SignalRecord,
    step=st.integers(0, 9),
    signals=st.builds(Signals, update_norm2=floats, log_relative_update=floats),
)
validations = st.builds(
    ValidationRecord, step=st.integers(0, 2**53), loss=floats, observed_step=st.integers(0, 9)
)
outcomes = st.builds(
    Outcome,
    metrics=st.just(()) | st.tuples(floats, floats),
    higher_is_better=st.booleans(),
    validation_loss=st.none() | floats,
)
unsent = st.builds(
    Unsent,
    target=st.just("localhost:50051"),
    run_ids=st.just(("a", "b")),
    task=st.text(max_size=5),
    configs=st.tuples(*[st.builds(RunConfig, horizon=st.integers(1, 9))] * 2),
    was_open=st.booleans(),
    first_step=st.integers(0, 2**53),
    losses=st.lists(st.tuples(floats, floats), max_size=5).map(tuple),
    updates=st.lists(updates, max_size=3).map(tuple),
    finish=st.booleans(),
    signals=st.lists(signals, max_size=3).map(tuple),
    validations=st.lists(validations, max_size=3).map(tuple),
    restored=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    outcome=st.just(NO_OUTCOME) | outcomes,
    tags=st.dictionaries(st.sampled_from("xy"), st.sampled_from(["", "é"]), max_size=2),
    note=st.sampled_from(["", "<b>\n\N{SNOWMAN}"]),
)


@given(unsent)
def test_files_keep_every_bit(one: Unsent) -> None:
    """What is written is read again as it was, NaN and infinities included."""
    assert repr(loaded(dumped(one))) == repr(one)


@given(unsent, st.data())
def test_damaged_files_are_told(one: Unsent, data: st.DataObject) -> None:
    """A file that is cut off, or is none, is refused as such."""
    text = dumped(one)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(InvalidArgumentError, match=r"is damaged|is not a file"):
        loaded(text[:cut])
    with pytest.raises(InvalidArgumentError, match="newer client"):
        loaded(re.sub('"version": .', f'"version": {VERSION + 1}', text))
    with pytest.raises(InvalidArgumentError, match="no released version"):
        loaded(re.sub('"version": .', f'"version": {PLAIN - 1}', text))


@given(unsent)
def test_files_are_as_older_clients_read_them(one: Unsent) -> None:
    """Only a file that has what older clients do not know is of a newer version."""
    facts = json.loads(dumped(one))
    has_extras = bool(one.signals or one.validations or one.restored)
    is_remembered = one.outcome != NO_OUTCOME
    is_noted = bool(one.tags or one.note)
    oldest = WITH_RESTORED if one.restored else WITH_SIGNALS if has_extras else PLAIN
    oldest = WITH_OUTCOME if is_remembered else oldest
    assert facts["version"] == (VERSION if is_noted else oldest)
    assert ("tags" in facts, "note" in facts) == (is_noted, is_noted)
    assert ("signals" in facts) is has_extras
    assert ("restored" in facts) is bool(one.restored)
    assert ("outcome" in facts) is is_remembered


async def test_files_that_are_none(connect: Any, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Pushing what is no such file names it."""
    (tmp_path / "other.json").write_text("{}")
    for name in ("missing.json", "other.json"):
        with pytest.raises(InvalidArgumentError, match=name) as caught:
            await pushed(connect, daemon, tmp_path / name)
        assert caught.value.field == "path"


@pytest.mark.parametrize("end", ["daemon lives", "daemon dies"])
async def test_a_run_that_was_left(start: Any, daemon: FakeDaemon, folder: Path, end: str) -> None:
    """A run that was left with all its answers has a file only if its daemon goes before the advisor does."""
    advisor = start()
    run = await done(advisor.run("task", id="a"))
    pending = run.observe(0, LOSSES[0])
    await done(pending.lr(timeout_s=20.0))
    run.detach()
    if end == "daemon dies":
        daemon.stop()
        await until(lambda: not advisor._connection.session._conversations)
    await done(advisor.close())
    assert bool(files(folder)) is (end == "daemon dies")
