"""Meta updates as they come in: made once, repeated, refused."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from mlrs_core.adapting import MetaOutcome
from mlrs_core.config import RunConfig
from mlrs_server.errors import Reason
from tests.server.meta.support import AFTER, learning
from tests.server.support import LOSSES, harness, raises, until


async def test_an_update_moves_the_step_it_is_about(tmp_path: Path, model_file: Path) -> None:
    """In the paper's order the step has a new learning rate, which holds where a loss is not finite."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        made = await run.update(1, -5.0)
        assert made.update.outcome == MetaOutcome.APPLIED
        assert made.update.lr != run.lrs[-1]
        assert made.update.log_change == pytest.approx(math.log(made.update.lr / run.lrs[-1]), rel=1e-3)
        held = await there.ask(run.opened.handle, 2, math.nan)
        assert held.lrs[0] == made.update.lr


async def test_an_update_after_the_step_leaves_it(tmp_path: Path, model_file: Path) -> None:
    """After the real step, its learning rate stands, and the next is another than without the update."""
    async with harness(tmp_path, model_file) as there:
        run, other = await learning(there, config=AFTER), await learning(there, "other", AFTER)
        await run.go([2.0, 1.9])
        await other.go([2.0, 1.9])
        made = await run.update(1, -5.0)
        assert made.update.lr == run.lrs[-1]
        await run.go([1.8], 2)
        await other.go([1.8], 2)
        assert run.lrs[:2] == other.lrs[:2]
        assert run.lrs[2] != other.lrs[2]


async def test_an_update_is_made_once(tmp_path: Path, model_file: Path) -> None:
    """The same update again returns what became of it, whenever it comes, and moves nothing."""
    async with harness(tmp_path, model_file) as there:
        run, twice = await learning(there), await learning(there, "twice")
        await run.go(LOSSES[:12].tolist())
        for step, loss in enumerate(LOSSES[:12].tolist()):
            await twice.go([loss], step)
            if step % 3 == 2:
                again = await twice.update(step)
                assert again == twice.applied[-1]
        assert twice.lrs == run.lrs
        late = await twice.update(5)
        assert late.update == twice.applied[1].update
        assert late.updates == 4


async def test_a_repeated_observation_keeps_its_first_answer(tmp_path: Path, model_file: Path) -> None:
    """What was advised for a step is advised again, though its update has moved the learning rate since."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:3].tolist())
        again = await there.ask(run.opened.handle, 2, LOSSES[2])
        assert again.lrs[0] == run.lrs[2]
        assert again.lrs[0] != run.applied[0].update.lr


async def test_what_cannot_be_an_update_is_refused(tmp_path: Path, model_file: Path) -> None:
    """Each wrong update says what is wrong with which field, and nothing moves."""
    async with harness(tmp_path, model_file) as there:
        run, frozen = await learning(there), await there.open("frozen", RunConfig())
        await run.go(LOSSES[:7].tolist())
        before = there.live.groups[0].states.tobytes()
        for alignment in (math.nan, math.inf, -math.inf, 1e31):
            with raises(Reason.INVALID_FIELD, field="alignment"):
                await run.update(6, alignment)
        with raises(Reason.STEP_AHEAD, field="step", match="observe it first"):
            await run.update(7)
        with raises(Reason.STALE_STEP, field="step", match="was applied with the alignment"):
            await run.update(5, 0.25)
        with raises(Reason.STALE_STEP, field="step", match="was not applied"):
            await run.update(4)
        with raises(Reason.CONFIG_MISMATCH, field="config.meta", match="when the run is created"):
            await run.adaptation.apply(frozen.handle, 0, 0, 1.0)
        for handle in (0, 1, run.opened.handle + 1, 2**63):
            with raises(Reason.STALE_HANDLE):
                await run.adaptation.apply(handle, 0, 6, 1.0)
        with raises(Reason.STALE_HANDLE):  # of another tenant
            await run.adaptation.apply(run.opened.handle, 1, 6, 1.0)
        assert there.live.groups[0].states.tobytes() == before


async def test_a_finished_run_learns_nothing_more(tmp_path: Path, model_file: Path) -> None:
    """An update of a finished run is refused, unless it was made before."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:4].tolist())
        await there.finish("run")
        with raises(Reason.RUN_FINISHED):
            await run.update(3)
        assert (await run.update(2)).update == run.applied[0].update


async def test_a_held_step_teaches_nothing(tmp_path: Path, model_file: Path) -> None:
    """The update of a step whose loss was not finite moves nothing, and is kept all the same."""
    async with harness(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, math.nan])
        made = await run.update(1, 1.0)
        assert (made.update.outcome, made.update.lr) == (MetaOutcome.IDLE, run.lrs[1])
        assert await run.update(1, 1.0) == made


async def test_runs_do_not_see_each_others_updates(tmp_path: Path, model_file: Path) -> None:
    """A run's bits are those it has alone, whichever others learn beside it, and before its first update."""
    async with harness(tmp_path / "alone", model_file) as there:
        alone = await learning(there)
        await alone.go(LOSSES[:60].tolist())
    async with harness(tmp_path / "beside", model_file) as there:
        runs = [await learning(there, f"run-{index}") for index in range(5)]
        for step in range(60):
            for index, run in enumerate(runs):
                loss = LOSSES[step] if index == 2 else LOSSES[(7 * index + 1 + step) % 60]
                await run.go([float(loss)], step)
        assert runs[2].lrs == alone.lrs
        assert len({tuple(run.lrs) for run in runs}) == 5


async def test_what_cannot_be_stored_is_not_made(tmp_path: Path, model_file: Path) -> None:
    """An update is refused while the queue of unstored answers is full, and applied once it is not."""
    async with harness(tmp_path, model_file, max_unflushed=3) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        there.store.failing.add("append")
        await run.update(1, 1.0)
        with raises(Reason.QUEUE_FULL):
            await there.ask(run.opened.handle, 2, 1.8)
        there.store.failing.clear()
        await there.live.journal.flush()
        await run.go([1.8], 2)


async def test_a_run_that_leaves_while_its_update_is_read_tells_of_no_other(
    tmp_path: Path, model_file: Path
) -> None:
    """Where another run has come to its row meanwhile, a repeated update hears that its handle is stale."""
    async with harness(tmp_path, model_file) as there:
        run, other = await learning(there), await learning(there, "other")
        await run.go(LOSSES[:4].tolist())
        await other.go(LOSSES[:40].tolist())
        stored = await there.stored.get("other")
        replayed = await there.stored.replay(stored)
        (group,) = there.live.groups
        there.live.drop_rows(group, [there.row(other.opened.handle)])
        there.store.unblocked.clear()
        calls = len(there.store.calls)
        asked = asyncio.create_task(run.update(2))
        await until(lambda: len(there.store.calls) > calls)
        there.live.drop_rows(group, [there.row(run.opened.handle)])
        assert there.live.load(stored, replayed).row == there.row(run.opened.handle)
        there.store.unblocked.set()
        with raises(Reason.STALE_HANDLE):
            await asked
