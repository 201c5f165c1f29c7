"""Opening, completing, rewinding, finishing and deleting runs, without a wire."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import Optimizer, RunConfig
from mlrs_server import failpoints
from mlrs_server.domain.ledger import AdviceReason, RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.runs import changes
from mlrs_server.runs.open_request import OpenRequest
from tests.server.support import LOSSES, Harness, harness, raises, replayed
from tests.support.daemon import write_random_model

FULL = RunConfig(
    horizon=60,
    num_classes=10,
    scale=0.5,
    snapshot=1,
    optimizer=Optimizer.SGD,
    momentum=0.5,
    min_lr=1e-6,
    max_lr=2.0,
)
OTHERS: dict[str, Any] = {
    "horizon": 61,
    "num_classes": 11,
    "scale": 0.6,
    "snapshot": 2,
    "optimizer": Optimizer.ADAM,
    "momentum": 0.6,
    "min_lr": 1e-5,
    "max_lr": 3.0,
}

# ---------------------------------------------------------------------------------- opening


async def test_open_creates_then_resumes(tmp_path: Path, model_file: Path) -> None:
    """The first open creates; a later one resumes under the same handle, where the run is."""
    async with harness(tmp_path / "d", model_file) as here:
        first = await here.open("a", FULL)
        assert first.created
        assert (first.view.snapshot.next_step, first.view.durable_step) == (0, -1)
        await here.follow(first.handle, LOSSES[:3])
        again = await here.open("a")
        assert not again.created
        assert again.handle == first.handle
        assert again.view.config == FULL
        assert (again.view.snapshot.next_step, again.view.durable_step) == (3, 2)


async def test_modes_allow_what_they_say(tmp_path: Path, model_file: Path) -> None:
    """`create` refuses an id that is taken, `resume` one that is not."""
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.RUN_NOT_FOUND, field="run_id"):
            await here.open("a", mode="resume")
        assert (await here.open("a", mode="create")).created
        with raises(Reason.RUN_EXISTS, field="run_id", match="resume it"):
            await here.open("a", mode="create")
        assert not (await here.open("a", mode="resume")).created


@pytest.mark.parametrize("run_id", ["", "-a", "a b", "a\n", "é", "a" * 257, "a\x00", "../a"])
async def test_malformed_ids_are_refused(tmp_path: Path, model_file: Path, run_id: str) -> None:
    """An id that could not be created is refused as a field, by every call that takes one."""
    async with harness(tmp_path / "d", model_file) as here:
        for call in (
            here.open(run_id),
            here.records.get(run_id),
            here.finish(run_id),
            here.ending.delete(run_id),
            here.opener.handle_of(run_id),
        ):
            with raises(Reason.INVALID_FIELD, field="run_id"):
                await call


@pytest.mark.parametrize("field", OTHERS)
async def test_another_config_is_refused(tmp_path: Path, model_file: Path, field: str) -> None:
    """A resume that asks for another value fails, names the field, and changes nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", FULL)
        for _ in range(2):  # before its first observation, and after
            with raises(Reason.CONFIG_MISMATCH, field=f"config.{field}", match="leave the field out"):
                await here.open("a", replace(FULL, **{field: OTHERS[field]}))
            assert (await here.open("a", FULL)).handle == opened.handle
            await here.follow(opened.handle, LOSSES[:1])


async def test_another_model_is_refused(tmp_path: Path, model_file: Path) -> None:
    """A resume that names another model fails; one that names the run's by any name does not."""
    async with harness(tmp_path / "d", model_file) as here:
        here.catalog.add_file(write_random_model(tmp_path / "o.safetensors", seed=1), "other")
        opened = await here.open("a", model="small")
        for name in ("", "small", "default", opened.view.model_ref):
            assert (await here.open("a", model=name)).handle == opened.handle
        with raises(Reason.CONFIG_MISMATCH, field="model"):
            await here.open("a", model="other")


async def test_a_config_is_completed_before_the_first_observation_only(
    tmp_path: Path, model_file: Path
) -> None:
    """A run takes the fields it lacks until it begins, and the advice follows from them."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", RunConfig(horizon=60))
        completed = await here.open("a", RunConfig(scale=0.5))
        assert completed.handle == opened.handle
        config = RunConfig(horizon=60, scale=0.5)
        assert completed.view.config == config
        lrs = await here.follow(opened.handle, LOSSES[:20])
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, config, LOSSES[:20]).tobytes()
        with raises(Reason.CONFIG_MISMATCH, field="config.max_lr", match="no value"):
            await here.open("a", RunConfig(max_lr=1.0))
    async with harness(tmp_path / "d", model_file) as here:
        assert (await here.records.get("a")).config == config


async def test_no_observation_slips_under_a_changing_config(tmp_path: Path, model_file: Path) -> None:
    """While a config is being completed the run takes nothing, so all of it is under one config."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        here.store.unblocked.clear()
        completing = asyncio.create_task(here.open("a", RunConfig(scale=0.5)))
        here.store.calls.clear()
        here.store.unblocked.set()
        answers = []
        while not completing.done():
            answers.append(await here.ask(opened.handle, len(answers), 1.0))
            if answers[-1].errors:
                assert answers.pop().errors[0].reason == Reason.STALE_HANDLE
        try:
            config = (await completing).view.config
        except AdvisorError as error:  # an observation was first
            assert error.reason == Reason.CONFIG_MISMATCH  # noqa: PT017  # either may happen
            config = RunConfig()
        lrs = [float(answer.lrs[0]) for answer in answers]
        lrs += (await here.follow(opened.handle, [1.0] * 3, start=len(lrs))).tolist()
        alone = replayed(here.catalog.find("").policy, config, [1.0] * len(lrs))
        assert np.array(lrs).tobytes() == alone.tobytes()
        record = await here.history("a")
        assert record.lrs.tobytes() == alone.tobytes()


async def test_a_config_that_cannot_be_stored_is_not_taken(tmp_path: Path, model_file: Path) -> None:
    """When completing fails, the run goes on under the config and the handle it had."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        here.store.failing = {"complete"}
        with raises(Reason.STORE):
            await here.open("a", RunConfig(scale=0.5))
        lrs = await here.follow(opened.handle, LOSSES[:5])
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:5]).tobytes()


async def test_a_snapshot_must_be_the_models(tmp_path: Path, model_file: Path) -> None:
    """A snapshot that the model lacks is refused, on creating and on completing."""
    async with harness(tmp_path / "d", model_file) as here:
        for _ in range(2):
            with raises(Reason.INVALID_FIELD, field="config.snapshot", match="0 to 2"):
                await here.open("a", RunConfig(snapshot=3))
            await here.open("a")


async def test_concurrent_opens_make_one_run(tmp_path: Path, model_file: Path) -> None:
    """Of many ranks that open an id at once one creates it, and all get the same handle."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await asyncio.gather(*(here.open("a", FULL) for _ in range(20)))
        assert sum(one.created for one in opened) == 1
        assert len({one.handle for one in opened}) == 1
        assert len(await here.records.list(prefix="", status=None, after="", limit=9)) == 1


# -------------------------------------------------------------------------------- rewinding


@settings(max_examples=25)
@given(data=st.data())
def test_a_rewound_run_never_went_further(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From any step that a run is rewound to, its LRs are those of a run that was never beyond."""
    folder = tmp_path_factory.mktemp("rewind")
    losses = st.lists(st.floats(-5, 5) | st.just(math.nan), max_size=12)

    async def scenario() -> None:
        async with harness(folder, write_random_model(folder / "m.safetensors")) as here:
            opened, kept = await here.open("a", FULL), list[float]()
            for _ in range(data.draw(st.integers(1, 4))):
                more = data.draw(losses)
                lrs = await here.follow(opened.handle, more, start=len(kept))
                kept += more
                alone = replayed(here.catalog.find("").policy, FULL, kept)
                assert lrs.tobytes() == alone[len(kept) - len(more) :].tobytes()
                step = data.draw(st.integers(0, len(kept)))
                before, opened = opened, await here.open("a", resume_from=step)
                assert (before.handle == opened.handle) == (step == len(kept))
                assert opened.view.snapshot.next_step == step
                kept = kept[:step]
            record = await here.history("a")
            assert record.losses.tobytes() == np.array(kept).tobytes()

    asyncio.run(scenario())


async def test_a_rewind_makes_old_handles_stale(tmp_path: Path, model_file: Path) -> None:
    """Whoever has the handle of before must open the run again, and learns where it is."""
    async with harness(tmp_path / "d", model_file) as here:
        before = await here.open("a")
        await here.follow(before.handle, LOSSES[:5])
        after = await here.open("a", resume_from=2)
        answer = await here.ask([before.handle, after.handle], [5, 2], [1.0, 1.0])
        assert answer.errors[0].reason == Reason.STALE_HANDLE
        assert answer.reasons[1] == AdviceReason.FRESH


@pytest.mark.parametrize("steps", [0, 5])
async def test_there_is_nothing_beyond_the_end(tmp_path: Path, model_file: Path, steps: int) -> None:
    """A step that the run has not reached is refused, and so is one of a run that is not there."""
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.INVALID_FIELD, field="resume_from"):
            await here.open("a", resume_from=1)
        opened = await here.open("a", resume_from=0)
        await here.follow(opened.handle, LOSSES[:steps])
        with raises(Reason.INVALID_FIELD, field="resume_from", match=f"{steps} steps"):
            await here.open("a", resume_from=steps + 1)
        assert (await here.open("a", resume_from=steps)).handle == opened.handle


@pytest.mark.parametrize("step", [0, 3, 5])
async def test_a_finished_run_is_reopened(tmp_path: Path, model_file: Path, step: int) -> None:
    """A finished run is opened only by going back to a step, and goes on from there."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", FULL)
        await here.follow(opened.handle, LOSSES[:5])
        await here.finish("a")
        with raises(Reason.RUN_FINISHED, match="resume_from"):
            await here.open("a")
        again = await here.open("a", resume_from=step)
        assert again.view.snapshot.status == RunStatus.ACTIVE
        lrs = await here.follow(again.handle, LOSSES[step:20], start=step)
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, FULL, LOSSES[:20])[step:].tobytes()


async def test_a_run_rewound_to_its_start_may_complete_its_config(tmp_path: Path, model_file: Path) -> None:
    """At step 0 nothing was advised, so fields that the run lacked may be given."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", RunConfig(horizon=60))
        await here.follow(opened.handle, LOSSES[:5])
        again = await here.open("a", RunConfig(scale=0.5), resume_from=0)
        config = RunConfig(horizon=60, scale=0.5)
        lrs = await here.follow(again.handle, LOSSES[:5])
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, config, LOSSES[:5]).tobytes()


@pytest.mark.parametrize("method", ["rewind", "append", "read"])
async def test_a_rewind_that_fails_changes_nothing(tmp_path: Path, model_file: Path, method: str) -> None:
    """When the store fails in the middle, the run goes on under its handle and its config."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", RunConfig(horizon=60))
        first = await here.follow(opened.handle, LOSSES[:5])
        here.store.failing = {method}
        with raises(Reason.STORE):
            await here.open("a", resume_from=2)
        if method == "rewind":
            with raises(Reason.STORE):
                await here.open("a", RunConfig(scale=0.5), resume_from=0)
        here.store.failing.clear()
        rest = await here.follow(opened.handle, LOSSES[5:9], start=5)
        alone = replayed(here.catalog.find("").policy, RunConfig(horizon=60), LOSSES[:9])
        assert np.concatenate([first, rest]).tobytes() == alone.tobytes()
        assert (await here.history("a")).lrs.tobytes() == alone.tobytes()


# ------------------------------------------------------------------------ finishing, deleting


async def test_finishing_stores_everything_and_may_be_repeated(tmp_path: Path, model_file: Path) -> None:
    """A finished run is durable to its last step; finishing it again is the same."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        for _ in range(2):
            view = await here.finish("a")
            assert view.snapshot.status == RunStatus.FINISHED
            assert (view.snapshot.next_step, view.durable_step) == (5, 4)
    async with harness(tmp_path / "d", model_file) as here:
        assert (await here.records.get("a")).snapshot.status == RunStatus.FINISHED
        assert (await here.finish("a")).snapshot.status == RunStatus.FINISHED


@pytest.mark.parametrize("method", ["append", "finish"])
async def test_finishing_that_fails_may_be_tried_again(tmp_path: Path, model_file: Path, method: str) -> None:
    """When the store fails, the run goes on as if nobody had asked, and can be finished later."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        here.store.failing = {method}
        with raises(Reason.STORE):
            await here.finish("a")
        here.store.failing.clear()
        await here.follow(opened.handle, LOSSES[3:5], start=3)
        assert (await here.open("a")).view.snapshot.status == RunStatus.ACTIVE
        assert (await here.finish("a")).snapshot.next_step == 5


async def test_what_was_stored_as_finished_stays_finished(tmp_path: Path, model_file: Path) -> None:
    """When only the reading after it fails, memory and store agree that the run is finished."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        get = here.store._store.get

        def fails_after_the_change(run_ids: Sequence[str]) -> Any:
            if "finish" in here.store.calls:
                raise AdvisorError(Reason.STORE, "the disk is gone")
            return get(run_ids)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(here.store._store, "get", fails_after_the_change)
            with raises(Reason.STORE):
                await here.finish("a")
        answer = await here.ask(opened.handle, 3, LOSSES[3])
        assert answer.errors[0].reason == Reason.RUN_FINISHED
        assert (await here.finish("a")).snapshot.status == RunStatus.FINISHED


async def test_a_deleted_id_begins_anew(tmp_path: Path, model_file: Path) -> None:
    """After a delete nothing of the run is left, and its id may be created with another config."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", FULL)
        await here.follow(opened.handle, LOSSES[:5])
        await here.ending.delete("a")
        for call in (here.records.get("a"), here.ending.delete("a"), here.finish("a")):
            with raises(Reason.RUN_NOT_FOUND, field="run_id"):
                await call
        again = await here.open("a", RunConfig(scale=0.1))
        assert again.created
        lrs = await here.follow(again.handle, LOSSES[:5])
        alone = replayed(here.catalog.find("").policy, RunConfig(scale=0.1), LOSSES[:5])
        assert lrs.tobytes() == alone.tobytes()


async def test_a_delete_that_fails_changes_nothing(tmp_path: Path, model_file: Path) -> None:
    """When the store fails, the run is as it was, under its handle."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        here.store.failing = {"delete"}
        with raises(Reason.STORE):
            await here.ending.delete("a")
        await here.follow(opened.handle, LOSSES[3:5], start=3)


CHANGES: dict[str, Callable[[Harness], Awaitable[Any]]] = {
    "delete": lambda here: here.ending.delete("a"),
    "rewind": lambda here: here.open("a", resume_from=2),
    "finish": lambda here: here.finish("a"),
    "create": lambda here: here.open("new"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("until", ["append", "get", "read", "rewind", "delete", "finish", "create"])
async def test_a_change_ends_though_its_caller_goes_away(
    tmp_path: Path, model_file: Path, change: str, until: str
) -> None:
    """A caller that leaves half-way leaves no run half-changed: memory and store agree after."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        here.store.calls.clear()
        here.store.unblocked.clear()
        task = asyncio.ensure_future(CHANGES[change](here))
        while until not in here.store.calls and not task.done():
            here.store.unblocked.set()
            await asyncio.sleep(0)
        here.store.unblocked.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        here.store.unblocked.set()
        if change == "finish":
            assert (await here.finish("a")).durable_step == 4
            return
        again = await here.open("a")
        start = again.view.snapshot.next_step
        assert start == {"delete": 0, "rewind": 2, "create": 5}[change]
        lrs = await here.follow(again.handle, LOSSES[start:9], start=start)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:9])
        assert lrs.tobytes() == alone[start:].tobytes()
        assert (await here.history("a")).lrs.tobytes() == alone.tobytes()


# -------------------------------------------------------------------------------- restarts


async def test_a_restart_changes_nothing(tmp_path: Path, model_file: Path) -> None:
    """Runs go on over any number of restarts with the bits of runs that never stopped."""
    configs = {"a": FULL, "b": RunConfig(), "c": RunConfig(num_classes=10, horizon=30)}
    losses = np.where(np.arange(40) % 7 == 5, np.nan, LOSSES[:40])
    lrs: dict[str, list[float]] = {name: [] for name in configs}
    for start in range(0, 40, 8):
        async with harness(tmp_path / "d", model_file) as here:
            for name, config in configs.items():
                opened = await here.open(name, config)
                assert opened.view.snapshot.next_step == opened.view.durable_step + 1 == start
                lrs[name] += (
                    await here.follow(opened.handle, losses[start : start + 8], start=start)
                ).tolist()
            policy = here.catalog.find("").policy
    for name, config in configs.items():
        assert np.array(lrs[name]).tobytes() == replayed(policy, config, losses).tobytes()


async def test_a_rewind_of_unknown_outcome_is_read_back(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails after it rewound a run, the run goes on from what the store holds."""
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("run")).handle
        await here.follow(handle, LOSSES[:40])
        await here.live.journal.flush()
        monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.committed=error"))
        with raises(Reason.STORE):
            await here.open("run", resume_from=10)
        assert (await here.ask(handle, 40, 1.0)).errors[0].reason == Reason.STALE_HANDLE
        again = await here.open("run")
        assert again.view.snapshot.next_step == 10
        await here.follow(again.handle, LOSSES[:20], start=10)
        await here.live.journal.flush()
        assert (await here.history("run")).losses.tolist() == [*LOSSES[:10], *LOSSES[:20]]


async def test_a_deletion_of_unknown_outcome_is_read_back(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails after it deleted a run, the run takes nothing more, and its id is free."""
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("run")).handle
        await here.follow(handle, LOSSES[:4])
        await here.live.journal.flush()
        monkeypatch.setattr(failpoints, "ARMED", failpoints.parse("store.committed=error"))
        with raises(Reason.STORE):
            await here.ending.delete("run")
        assert (await here.ask(handle, 4, 1.0)).errors[0].reason == Reason.STALE_HANDLE
        assert (await here.open("run")).created


# ------------------------------------------------------------------- a store that does not keep up


async def test_changes_do_not_pile_up(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store stands still, so many calls wait for it; one more is refused, until it goes on."""
    monkeypatch.setattr(changes, "MAX_CHANGES", 3)
    async with harness(tmp_path, model_file) as here:
        here.store.unblocked.clear()
        waiting = [asyncio.create_task(here.open_one(OpenRequest(run_id=name))) for name in "abc"]
        await asyncio.sleep(0)
        with raises(Reason.STORE, match="the store does not keep up"):
            await here.open_one(OpenRequest(run_id="d"))
        here.store.unblocked.set()
        await asyncio.gather(*waiting)
        await here.open_one(OpenRequest(run_id="d"))


async def test_closing_cuts_off_what_takes_too_long(tmp_path: Path, model_file: Path) -> None:
    """Changes that have not ended in time are cancelled and counted, and none is stored later."""
    async with harness(tmp_path, model_file) as here:
        here.store.unblocked.clear()
        waiting = [asyncio.create_task(here.open_one(OpenRequest(run_id=name))) for name in "abc"]
        await asyncio.sleep(0)
        with raises(Reason.STORE, match="3 calls that change runs were cut off"):
            await here.changes.close(within_s=0.01)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        here.store.unblocked.set()
        assert not await here.stored.find_all(["b", "c"])


async def test_a_run_that_lacks_steps_is_not_finished(tmp_path: Path, model_file: Path) -> None:
    """Told what a run must expect, finishing refuses while it expects less, and changes nothing."""
    async with harness(tmp_path, model_file) as there:
        opened, other = await there.open("run"), await there.open("other")
        await there.follow(opened.handle, LOSSES[:5])
        await there.follow(other.handle, LOSSES[:7])
        with raises(Reason.STEP_AHEAD, field="next_step", match="expects step 5, .* finished at 7"):
            await there.ending.finish_many(["other", "run"], [7, 7])
        with raises(Reason.INVALID_FIELD, field="next_steps"):
            await there.ending.finish_many(["other", "run"], [7])
        await there.follow(opened.handle, LOSSES[5:7], start=5)
        views = await there.ending.finish_many(["other", "run"], [7, 7])
        assert [view.snapshot.next_step for view in views] == [7, 7]
        assert (await there.finish("run", 99)).snapshot.next_step == 7  # it was finished before
