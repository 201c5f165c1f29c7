"""How runs begin: modes of opening, tasks, and runs that go from one feeder to another, without a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_core.config import MetaConfig, RunConfig
from mlrs_core.policy import Floats
from mlrs_server import failpoints
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import Reason
from mlrs_server.meta.apply import Adaptation
from mlrs_server.ops.checking import check_whole
from mlrs_server.runs import feeders
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.open_request import Opened, OpenMode, OpenRequest
from mlrs_server.storage import open_store
from tests.server.support import LOSSES, Harness, harness, raises, replayed, until
from tests.support.daemon import write_random_model

OLD, NEW = RunConfig(horizon=60, scale=0.5), RunConfig(horizon=30, num_classes=10)
FIRST, SECOND = "first-process", "second-process"


async def begin(
    here: Harness, mode: OpenMode, config: RunConfig = NEW, *, feeder: str = FIRST, **more: Any
) -> Opened:
    """Open the run "a" in a mode, as a process."""
    request = OpenRequest(run_id="a", asked=config, mode=mode, feeder=feeder, **more)
    return await here.open_one(request)


def alone(here: Harness, config: RunConfig, losses: Floats) -> Floats:
    """Return the learning rates of a run that never was another."""
    return replayed(here.catalog.find("").policy, config, losses)


async def is_stale(here: Harness, handle: int, step: int = 0) -> bool:
    """Return whether a handle names no run any more."""
    errors = (await here.ask(handle, step, LOSSES[step])).errors
    return bool(errors) and errors[0].reason == Reason.STALE_HANDLE


# ------------------------------------------------------------------------------ create and begin


async def test_a_lost_answer_of_a_creation_may_be_asked_for_again(tmp_path: Path, model_file: Path) -> None:
    """A process that creates a run again which it has created gets it; another process does not."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "create")
        again = await begin(here, "create")
        assert (again.created, again.handle) == (True, opened.handle)
        for feeder in (SECOND, ""):
            with raises(Reason.RUN_EXISTS, field="run_id", match="restart it"):
                await begin(here, "create", feeder=feeder)
        await here.follow(opened.handle, LOSSES[:3])  # the refused ones changed nothing


async def test_a_creation_without_a_feeder_is_made_once(tmp_path: Path, model_file: Path) -> None:
    """Callers that say no feeder cannot be distinguished, so the second creation is refused."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "create", feeder="")
        for feeder in ("", FIRST):
            with raises(Reason.RUN_EXISTS):
                await begin(here, "create", feeder=feeder)


@pytest.mark.parametrize("feeder", [FIRST, SECOND, ""])
async def test_a_run_begins_where_there_is_none_or_none_observed(
    tmp_path: Path, model_file: Path, feeder: str
) -> None:
    """`begin` creates a run, and takes one that has no observation, whoever opened it."""
    async with harness(tmp_path / "d", model_file) as here:
        assert (await begin(here, "begin", RunConfig(horizon=30))).created
        again = await begin(here, "begin", RunConfig(num_classes=10), feeder=feeder)
        assert not again.created
        lrs = await here.follow(again.handle, LOSSES[:9])
        assert lrs.tobytes() == alone(here, NEW, LOSSES[:9]).tobytes()


@pytest.mark.parametrize("feeder", [FIRST, SECOND, ""])
@pytest.mark.parametrize("finished", [False, True])
async def test_a_run_that_was_observed_is_not_begun_again(
    tmp_path: Path, model_file: Path, feeder: str, *, finished: bool
) -> None:
    """Once a process was told that step 0 is stored, the id is taken for everybody, itself included."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "begin")
        await here.follow(opened.handle, LOSSES[:5])
        if finished:
            await here.finish("a")
        await here.live.journal.flush()
        modes: Sequence[OpenMode] = ("begin", "create")
        for mode in modes:
            with raises(Reason.RUN_EXISTS, field="run_id", match="at step 5; resume it, restart it"):
                await begin(here, mode, feeder=feeder)
        if not finished:
            lrs = await here.follow(opened.handle, LOSSES[5:9], start=5)
            assert lrs.tobytes() == alone(here, NEW, LOSSES[:9])[5:].tobytes()


@pytest.mark.parametrize("mode", ["begin", "create"])
async def test_a_process_that_comes_back_before_step_0_is_stored_begins_at_step_0(
    tmp_path: Path, model_file: Path, mode: OpenMode
) -> None:
    """What nobody was told is stored is dropped, so that other losses may come; for others it is taken."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, mode)
        await here.follow(opened.handle, LOSSES[:5])
        with raises(Reason.RUN_EXISTS):
            await begin(here, mode, feeder=SECOND)
        assert not await is_stale(here, opened.handle)
    async with harness(tmp_path / "e", model_file) as here:
        opened = await begin(here, mode)
        await here.follow(opened.handle, LOSSES[:5])
        again = await begin(here, mode)
        assert again.view.snapshot.next_step == 0
        assert await is_stale(here, opened.handle)
        lrs = await here.follow(again.handle, LOSSES[10:20])
        assert lrs.tobytes() == alone(here, NEW, LOSSES[10:20]).tobytes()
        assert (await here.history("a")).lrs.tobytes() == lrs.tobytes()


async def test_a_finished_run_without_observations_is_begun(tmp_path: Path, model_file: Path) -> None:
    """Finishing a run that never began does not take its id away."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "begin")
        await here.finish("a")
        again = await begin(here, "begin", feeder=SECOND)
        assert again.view.snapshot.status == RunStatus.ACTIVE
        await here.follow(again.handle, LOSSES[:3])


@pytest.mark.parametrize("mode", ["begin", "restart"])
async def test_a_run_does_not_begin_in_its_middle(tmp_path: Path, model_file: Path, mode: OpenMode) -> None:
    """A step to go back to contradicts modes that begin at step 0."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "open", resume_from=0)
        with raises(Reason.INVALID_FIELD, field="resume_from", match="begins the run at step 0"):
            await begin(here, mode, resume_from=3)
        assert (await begin(here, mode, resume_from=0)).view.snapshot.next_step == 0


# -------------------------------------------------------------------------------------- restart


@pytest.mark.parametrize("mode", ["finished", "stored", "in memory", "elsewhere", "absent"])
@pytest.mark.parametrize("feeder", [FIRST, SECOND, ""])
async def test_a_restarted_run_is_a_new_one(tmp_path: Path, model_file: Path, mode: str, feeder: str) -> None:
    """Whatever run of the id there was, the new one has another config and model, and a new one's bits."""
    other = write_random_model(tmp_path / "o.safetensors", seed=1)
    async with harness(tmp_path / "d", model_file) as here:
        here.catalog.add_file(other, "other")
        before = None
        if mode != "absent":
            before = await begin(here, "create", OLD, model="other", task="before")
            await here.follow(before.handle, LOSSES[:20])
        if mode in {"stored", "elsewhere"}:
            await here.live.journal.flush()
        if mode == "finished":
            await here.finish("a")
        if mode == "elsewhere":
            await here.live.drop_shards(range(256))
        again = await begin(here, "restart", feeder=feeder, task="after")
        assert again.created
        assert (again.view.config, again.view.task) == (NEW, "after")
        assert again.view.model_ref == here.catalog.find("").ref
        assert (again.view.snapshot.next_step, again.view.durable_step) == (0, -1)
        if before is not None:
            assert await is_stale(here, before.handle, 20)
        losses = LOSSES[30:60]
        lrs = await here.follow(again.handle, losses)
        assert lrs.tobytes() == alone(here, NEW, losses).tobytes()
    async with harness(tmp_path / "d", model_file) as here:
        record = await here.history("a")
        assert (record.losses.tobytes(), record.lrs.tobytes()) == (losses.tobytes(), lrs.tobytes())
        more = await here.follow((await begin(here, "open")).handle, LOSSES[60:70], start=30)
        assert more.tobytes() == alone(here, NEW, LOSSES[30:70])[30:].tobytes()


async def test_a_restarted_run_in_meta_mode_has_learnt_nothing(tmp_path: Path, model_file: Path) -> None:
    """The network of the run before, and its updates, go with it."""
    meta = RunConfig(horizon=60, meta=MetaConfig())
    lrs: list[Floats] = []
    async with harness(tmp_path / "d", model_file) as here:
        for _ in range(2):
            opened = await begin(here, "restart", meta)
            lrs.append(await here.follow(opened.handle, LOSSES[:10]))
            made = await Adaptation(here.live, here.stored).apply(opened.handle, 0, 9, 0.5)
            assert made.updates == 1
            lrs.append(await here.follow(opened.handle, LOSSES[10:20], start=10))
        again = await begin(here, "restart", meta)
        assert again.view.meta is not None
        assert again.view.meta.updates == 0
    assert [lrs[0].tobytes(), lrs[1].tobytes()] == [lrs[2].tobytes(), lrs[3].tobytes()]
    with closing(open_store(tmp_path / "d" / "mlrs.sqlite3")) as store, store.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM meta_updates").scalar_one() == 0
        assert connection.exec_driver_sql("SELECT count(*) FROM observations").scalar_one() == 0


@pytest.mark.parametrize("method", ["append", "create"])
async def test_a_restart_that_fails_changes_nothing(tmp_path: Path, model_file: Path, method: str) -> None:
    """When the store fails, the run goes on under its handle, its config and its record."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "create", OLD)
        first = await here.follow(opened.handle, LOSSES[:5])
        here.store.failing = {method}
        with raises(Reason.STORE):
            await begin(here, "restart")
        here.store.failing.clear()
        rest = await here.follow(opened.handle, LOSSES[5:9], start=5)
        assert np.concatenate([first, rest]).tobytes() == alone(here, OLD, LOSSES[:9]).tobytes()
        assert (await here.history("a")).losses.tolist() == LOSSES[:9].tolist()


async def test_a_wrong_config_does_not_drop_the_run(tmp_path: Path, model_file: Path) -> None:
    """What is wrong with a restart is found before the run is dropped."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "create", OLD)
        await here.follow(opened.handle, LOSSES[:5])
        with raises(Reason.INVALID_FIELD, field="config.snapshot"):
            await begin(here, "restart", RunConfig(snapshot=9))
        with raises(Reason.MODEL_NOT_FOUND):
            await begin(here, "restart", model="nobody")
        await here.follow(opened.handle, LOSSES[5:9], start=5)


async def test_a_restart_of_unknown_outcome_is_read_back(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails after it replaced a run, the old one is closed, and the new one is there."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "create", OLD)
        await here.follow(opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.committed=error"))
        with raises(Reason.STORE):
            await begin(here, "restart")
        assert await is_stale(here, opened.handle, 5)
        again = await begin(here, "open")
        assert (again.view.config, again.view.snapshot.next_step) == (NEW, 0)


async def test_nothing_of_a_restarted_run_is_left_behind(tmp_path: Path, model_file: Path) -> None:
    """What is observed while a restart is under way goes with the run that it was observed of."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await begin(here, "create", OLD)
        await here.follow(opened.handle, LOSSES[:5])
        here.store.calls.clear()
        here.store.unblocked.clear()
        task = asyncio.create_task(begin(here, "restart"))
        await until(lambda: "append" in here.store.calls)
        await here.follow(opened.handle, LOSSES[5:8], start=5)
        here.store.unblocked.set()
        again = await task
        await here.follow(again.handle, LOSSES[:3])
    with closing(open_store(tmp_path / "d" / "mlrs.sqlite3")) as store:
        assert check_whole(store) == []


async def test_runs_of_a_batch_are_restarted_together(tmp_path: Path, model_file: Path) -> None:
    """New runs and restarted ones are created in one transaction, all or none."""
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("b", OLD)).handle
        await here.follow(handle, LOSSES[:5])
        asked = [
            OpenRequest(run_id=run_id, asked=NEW, mode="restart", group="sweep") for run_id in ("a", "b", "c")
        ]
        here.store.failing = {"create"}
        with raises(Reason.STORE):
            await here.opener.open_many(asked)
        here.store.failing.clear()
        assert [run.run_id for run in await here.records.list(prefix="", status=None, after="", limit=9)] == [
            "b"
        ]
        opened = await here.opener.open_many(asked)
        assert all(one.created for one in opened)
        for one in opened:
            lrs = await here.follow(one.handle, LOSSES[:9])
            assert lrs.tobytes() == alone(here, NEW, LOSSES[:9]).tobytes()


async def test_a_damaged_run_is_restarted(tmp_path: Path, model_file: Path) -> None:
    """A run that can be read no more makes way for a new one."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.follow((await begin(here, "create", OLD)).handle, LOSSES[:5])
    with closing(open_store(tmp_path / "d" / "mlrs.sqlite3")) as store, store.transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET config = x'00', snapshot = x'00'")
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.DAMAGED):
            await begin(here, "open")
        again = await begin(here, "restart")
        lrs = await here.follow(again.handle, LOSSES[:9])
        assert lrs.tobytes() == alone(here, NEW, LOSSES[:9]).tobytes()


async def test_followers_see_a_restarted_run_from_its_start(tmp_path: Path, model_file: Path) -> None:
    """Who follows a run that is restarted goes on to follow the new one, step by step."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01) as here:
        opened = await begin(here, "create", OLD)
        await here.follow(opened.handle, LOSSES[:5])
        seen: list[tuple[int, float]] = []

        async def follow() -> None:
            async for _, first, part in here.records.watch("a", 0, follow=True):
                seen.extend(enumerate(part.losses.tolist(), first))

        task = asyncio.create_task(follow())
        await until(lambda: len(seen) == 5)
        again = await begin(here, "restart")
        await here.follow(again.handle, LOSSES[20:23])
        await here.finish("a")
        await asyncio.wait_for(task, 60)
        wanted = [*enumerate(LOSSES[:5].tolist()), *enumerate(LOSSES[20:23].tolist())]
        assert seen == wanted


# -------------------------------------------------------------------------------------- feeders


async def test_another_process_takes_a_run_over(tmp_path: Path, model_file: Path) -> None:
    """The handle of the process before becomes stale, without a step being lost; the same one's does not."""
    async with harness(tmp_path / "d", model_file) as here:
        first = await begin(here, "begin")
        lrs = [await here.follow(first.handle, LOSSES[:5])]
        assert (await begin(here, "open")).handle == first.handle
        second = await begin(here, "open", feeder=SECOND)
        assert not second.took_over, "the first is not connected"
        assert await is_stale(here, first.handle, 5)
        lrs.append(await here.follow(second.handle, LOSSES[5:9], start=5))
        assert (await begin(here, "open", feeder="")).handle == second.handle
        assert np.concatenate(lrs).tobytes() == alone(here, NEW, LOSSES[:9]).tobytes()


async def test_a_run_that_nobody_feeds_by_name_is_shared(tmp_path: Path, model_file: Path) -> None:
    """Callers without a feeder keep their handle when a process with one comes: they are exempt."""
    async with harness(tmp_path / "d", model_file) as here:
        first = await begin(here, "open", feeder="")
        second = await begin(here, "open", feeder=FIRST)
        assert second.handle == first.handle
        assert await here.opener.handle_of("a") == first.handle


async def test_a_take_over_that_fails_changes_nothing(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails the feeder goes on; when it may have stored the change, its handle is stale."""
    async with harness(tmp_path / "d", model_file) as here:
        first = await begin(here, "begin")
        here.store.failing = {"set_feeder"}
        with raises(Reason.STORE):
            await begin(here, "open", feeder=SECOND)
        here.store.failing.clear()
        await here.follow(first.handle, LOSSES[:3])
        await here.live.journal.flush()
        monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.committed=error"))
        with raises(Reason.STORE):
            await begin(here, "open", feeder=SECOND)
        assert await is_stale(here, first.handle, 3)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Feeders:
    """The processes that have streams open, of harnesses opened from now on."""
    made = Feeders()
    monkeypatch.setattr("mlrs_server.runs.opener.Feeders", lambda: made)
    return made


async def test_a_connected_feeder_is_not_joined_over(
    tmp_path: Path, model_file: Path, connected: Feeders
) -> None:
    """While the feeder has a stream, another may open the run and take it over, but not join it again."""
    async with harness(tmp_path / "d", model_file) as here:
        first = await begin(here, "begin")
        with connected.streaming("", FIRST):
            with raises(Reason.OTHER_FEEDER, field="run_id", match="stop one of the two"):
                await begin(here, "resume", feeder=SECOND)
            await here.follow(first.handle, LOSSES[:3])
            for feeder in (FIRST, ""):
                assert (await begin(here, "resume", feeder=feeder)).handle == first.handle
            second = await begin(here, "open", feeder=SECOND)
            assert second.took_over
            with connected.streaming("", SECOND), raises(Reason.OTHER_FEEDER):
                await begin(here, "resume", feeder=FIRST)
            again = await begin(here, "resume", feeder=FIRST)
            assert not again.took_over, "the second's stream has ended"
            for mode in ("resume", "restart"):
                taken = await begin(here, mode, feeder=SECOND, resume_from=0)
                assert taken.took_over, "going back to a step is a decision, not joining again"
                await begin(here, "open", feeder=FIRST)


async def test_a_feeder_is_awaited_for_a_moment(
    tmp_path: Path, model_file: Path, connected: Feeders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has just opened a run keeps it from the one before, whose stream is there, until its own is."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "begin")
        with connected.streaming("", FIRST):
            await begin(here, "open", feeder=SECOND)
            with raises(Reason.OTHER_FEEDER):
                await begin(here, "resume", feeder=FIRST)
            monkeypatch.setattr(feeders, "STREAM_WITHIN_S", 0.0)
            await begin(here, "open", feeder=SECOND)
            assert not (await begin(here, "resume", feeder=FIRST)).took_over


async def test_a_feeder_is_remembered_over_a_restart(
    tmp_path: Path, model_file: Path, connected: Feeders
) -> None:
    """A daemon that starts knows who feeds a run, so a retried opening is one still."""
    async with harness(tmp_path / "d", model_file) as here:
        await begin(here, "create")
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.RUN_EXISTS):
            await begin(here, "create", feeder=SECOND)
        assert (await begin(here, "create")).created
        with connected.streaming("", FIRST), raises(Reason.OTHER_FEEDER):
            await begin(here, "resume", feeder=SECOND)


# ---------------------------------------------------------------------------------------- tasks


async def test_a_task_is_of_the_run_for_good(tmp_path: Path, model_file: Path) -> None:
    """A run has the task that it was created with, by default its id, wherever it is read."""
    async with harness(tmp_path / "d", model_file) as here:
        assert (await begin(here, "open", task="resnet18-cifar10")).view.task == "resnet18-cifar10"
        assert (await begin(here, "open", task="another")).view.task == "resnet18-cifar10"
        assert (await here.open("b")).view.task == "b"
    async with harness(tmp_path / "d", model_file) as here:
        listed = await here.records.list(prefix="", status=None, after="", limit=9)
        assert [run.task for run in listed] == ["resnet18-cifar10", "b"]
        assert (await here.records.get("a")).task == "resnet18-cifar10"
        assert (await here.finish("a")).task == "resnet18-cifar10"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "-a"),
        ("task", "a b"),
        ("task", "a" * 257),
        ("feeder", "a_b"),
        ("feeder", "a" * 65),
        ("feeder", "é"),
    ],
)
def test_malformed_tasks_and_feeders_are_refused(field: str, value: str) -> None:
    """A task has the form of an id, a feeder is of letters, digits and hyphens."""
    with raises(Reason.INVALID_FIELD, field=field):
        OpenRequest(run_id="a", **{field: value})  # type: ignore[arg-type]
