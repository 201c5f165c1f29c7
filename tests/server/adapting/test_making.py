"""Meta updates as they come in: made once, repeated, refused, put together from shards."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from mlrs_core.adapting import MetaOutcome
from mlrs_core.config import RunConfig
from mlrs_server.adapting import making
from mlrs_server.errors import Reason
from tests.server.adapting.support import AFTER, META, Learning, learning
from tests.server.support import LOSSES, raises, room, until


async def test_an_update_moves_the_step_it_is_about(tmp_path: Path, model_file: Path) -> None:
    """In the paper's order the step has a new learning rate, which holds where a loss is not finite."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        made = await run.update(1, -5.0)
        assert made.update is not None
        assert made.update.outcome == MetaOutcome.APPLIED
        assert made.update.lr != run.lrs[-1]
        assert made.update.log_change == pytest.approx(math.log(made.update.lr / run.lrs[-1]), rel=1e-3)
        held = await there.ask(run.opened.handle, 2, math.nan)
        assert held.lrs[0] == made.update.lr


async def test_an_update_after_the_step_leaves_it(tmp_path: Path, model_file: Path) -> None:
    """After the real step, its learning rate stands, and the next is another than without the update."""
    async with room(tmp_path, model_file) as there:
        run, other = await learning(there, config=AFTER), await learning(there, "other", AFTER)
        await run.go([2.0, 1.9])
        await other.go([2.0, 1.9])
        made = await run.update(1, -5.0)
        assert made.update is not None
        assert made.update.lr == run.lrs[-1]
        await run.go([1.8], 2)
        await other.go([1.8], 2)
        assert run.lrs[:2] == other.lrs[:2]
        assert run.lrs[2] != other.lrs[2]


async def test_an_update_is_made_once(tmp_path: Path, model_file: Path) -> None:
    """The same update again returns what became of it, whenever it comes, and moves nothing."""
    async with room(tmp_path, model_file) as there:
        run, twice = await learning(there), await learning(there, "twice")
        await run.go(LOSSES[:12].tolist())
        for step, loss in enumerate(LOSSES[:12].tolist()):
            await twice.go([loss], step)
            if step % 3 == 2:
                again = await twice.update(step)
                assert again == twice.made[-1]
        assert twice.lrs == run.lrs
        late = await twice.update(5)
        assert late.update == twice.made[1].update
        assert late.updates == 4


async def test_a_repeated_observation_keeps_its_first_answer(tmp_path: Path, model_file: Path) -> None:
    """What was advised for a step is advised again, though its update has moved the learning rate since."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:3].tolist())
        again = await there.ask(run.opened.handle, 2, LOSSES[2])
        assert again.lrs[0] == run.lrs[2]
        assert run.made[0].update is not None
        assert again.lrs[0] != run.made[0].update.lr


async def test_what_cannot_be_an_update_is_refused(tmp_path: Path, model_file: Path) -> None:
    """Each wrong update says what is wrong with which field, and nothing moves."""
    async with room(tmp_path, model_file) as there:
        run, frozen = await learning(there), await there.open("frozen", RunConfig())
        await run.go(LOSSES[:7].tolist())
        before = there.live.groups[0].states.tobytes()
        for alignment in (math.nan, math.inf, -math.inf, 1e31):
            with raises(Reason.INVALID_FIELD, field="alignment"):
                await run.update(6, alignment)
        with raises(Reason.STEP_AHEAD, field="step", match="observe it first"):
            await run.update(7)
        with raises(Reason.STALE_STEP, field="step", match="was made of the alignment"):
            await run.update(5, 0.25)
        with raises(Reason.STALE_STEP, field="step", match="was not made"):
            await run.update(4)
        with raises(Reason.CONFIG_MISMATCH, field="config.meta", match="when the run is created"):
            await run.adaptation.make(frozen.handle, 0, 0, 1.0)
        for handle in (0, 1, run.opened.handle + 1, 2**63):
            with raises(Reason.STALE_HANDLE):
                await run.adaptation.make(handle, 0, 6, 1.0)
        with raises(Reason.STALE_HANDLE):  # of another tenant
            await run.adaptation.make(run.opened.handle, 1, 6, 1.0)
        assert there.live.groups[0].states.tobytes() == before


async def test_a_finished_run_learns_nothing_more(tmp_path: Path, model_file: Path) -> None:
    """An update of a finished run is refused, unless it was made before."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go(LOSSES[:4].tolist())
        await there.lifecycle.finish("run")
        with raises(Reason.RUN_FINISHED):
            await run.update(3)
        assert (await run.update(2)).update == run.made[0].update


async def test_a_held_step_teaches_nothing(tmp_path: Path, model_file: Path) -> None:
    """The update of a step whose loss was not finite moves nothing, and is kept all the same."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, math.nan])
        made = await run.update(1, 1.0)
        assert made.update is not None
        assert (made.update.outcome, made.update.lr) == (MetaOutcome.IDLE, run.lrs[1])
        assert await run.update(1, 1.0) == made


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_shards_add_up(tmp_path: Path, model_file: Path, order: tuple[int, ...]) -> None:
    """Parts of an alignment, in any order, are the whole bit for bit; until all are there, nothing moves."""
    parts = [1e16, 1.5, -1e16]
    async with room(tmp_path, model_file) as there:
        whole, run = await learning(there, "whole"), await learning(there)
        await whole.go([2.0, 1.9])
        await run.go([2.0, 1.9])
        expected = await whole.update(1, 1.5)
        for shard, missing in zip(order, (2, 1, 0), strict=True):
            made = await part(run, 1, parts[shard], shard, 3)
            assert made.missing == missing
            assert (made.update is None) == (missing > 0)
        assert made.update is not None
        assert expected.update is not None
        assert made.update.lr == expected.update.lr
        assert (await part(run, 1, parts[0], 0, 3)).update == made.update


async def part(run: Learning, step: int, value: float, shard: int, count: int) -> making.Made:
    """Send a part of an alignment."""
    return await run.adaptation.make_part(run.opened.handle, 0, step, value, (shard, count))


async def test_shards_that_contradict_each_other_are_refused(tmp_path: Path, model_file: Path) -> None:
    """A part that was sent otherwise before, or with another count, is refused; a repeated one is not."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0])
        assert (await part(run, 0, 1.0, 0, 2)).missing == 1
        assert (await part(run, 0, 1.0, 0, 2)).missing == 1
        with raises(Reason.INVALID_FIELD, field="shard", match="another alignment"):
            await part(run, 0, 2.0, 0, 2)
        with raises(Reason.INVALID_FIELD, field="shard_count", match="said 2"):
            await part(run, 0, 1.0, 1, 3)
        with raises(Reason.INVALID_FIELD, field="shard", match="below shard_count"):
            await part(run, 0, 1.0, 2, 2)
        with raises(Reason.INVALID_FIELD, field="shard_count"):
            await part(run, 0, 1.0, 0, 70_000)
        with raises(Reason.INVALID_FIELD, field="alignment"):
            await part(run, 0, math.nan, 1, 2)
        await run.go([1.9], 1)  # the run goes on without the rest
        assert (await part(run, 1, 3.0, 0, 2)).missing == 1
        with raises(Reason.STALE_STEP, match="was not made"):
            await part(run, 0, 1.0, 1, 2)


async def test_parts_that_wait_are_bounded(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many parts are kept at most; those that wait in vain make room first."""
    monkeypatch.setattr(making, "MAX_PARTS", 2)
    async with room(tmp_path, model_file) as there:
        one, other = await learning(there, "one"), await learning(there, "other")
        other.adaptation = one.adaptation
        await one.go([2.0])
        await other.go([2.0])
        assert (await part(one, 0, 1.0, 0, 3)).missing == 2
        assert (await part(one, 0, 1.0, 1, 3)).missing == 1
        with raises(Reason.QUEUE_FULL, field="alignment"):
            await part(other, 0, 1.0, 0, 2)
        await one.go([1.9], 1)
        assert (await part(other, 0, 1.0, 0, 2)).missing == 1


async def test_runs_do_not_see_each_others_updates(tmp_path: Path, model_file: Path) -> None:
    """A run's bits are those it has alone, whichever others learn beside it, and before its first update."""
    async with room(tmp_path / "alone", model_file) as there:
        alone = await learning(there)
        await alone.go(LOSSES[:60].tolist())
    async with room(tmp_path / "beside", model_file) as there:
        runs = [await learning(there, f"run-{index}") for index in range(5)]
        for step in range(60):
            for index, run in enumerate(runs):
                loss = LOSSES[step] if index == 2 else LOSSES[(7 * index + 1 + step) % 60]
                await run.go([float(loss)], step)
        assert runs[2].lrs == alone.lrs
        assert len({tuple(run.lrs) for run in runs}) == 5


async def test_what_cannot_be_stored_is_not_made(tmp_path: Path, model_file: Path) -> None:
    """Where as much waits to be stored as is kept, an update is refused, and is made once there is room."""
    async with room(tmp_path, model_file, max_undurable=3) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        there.store.failing.add("append")
        await run.update(1, 1.0)
        with raises(Reason.QUEUE_FULL):
            await there.ask(run.opened.handle, 2, 1.8)
        there.store.failing.clear()
        await there.live.journal.flush()
        await run.go([1.8], 2)


async def test_parts_stay_until_their_update_is_made(tmp_path: Path, model_file: Path) -> None:
    """Where the update of all parts is refused for now, the last part alone, sent again, makes it later."""
    async with room(tmp_path, model_file, max_undurable=2) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        assert (await part(run, 1, 1.0, 0, 3)).missing == 2
        assert (await part(run, 1, 2.0, 1, 3)).missing == 1
        for _ in range(2):
            with raises(Reason.QUEUE_FULL, field="max_undurable"):
                await part(run, 1, 4.0, 2, 3)
        await there.live.journal.flush()
        made = await part(run, 1, 4.0, 2, 3)
        assert made.missing == 0
        assert made.update is not None
        assert made.update.alignment == 7.0


async def test_parts_of_before_a_rewind_do_not_count(tmp_path: Path, model_file: Path) -> None:
    """What shards sent of a step that a rewind dropped is no part of that step as it is made again."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0, 1.9])
        assert (await part(run, 1, 100.0, 0, 2)).missing == 1
        run.opened = await there.open("run", META, resume_from=1)
        await run.go([1.7], 1)
        assert (await part(run, 1, 1.0, 1, 2)).missing == 1
        made = await part(run, 1, 2.0, 0, 2)
        assert made.update is not None
        assert made.update.alignment == 3.0


async def test_parts_too_large_to_add_are_refused(tmp_path: Path, model_file: Path) -> None:
    """A part has the bounds of an alignment, so that sums cannot overflow."""
    async with room(tmp_path, model_file) as there:
        run = await learning(there)
        await run.go([2.0])
        with raises(Reason.INVALID_FIELD, field="alignment"):
            await part(run, 0, 1e308, 0, 2)


async def test_a_run_that_leaves_while_its_update_is_read_tells_of_no_other(
    tmp_path: Path, model_file: Path
) -> None:
    """Where another run has come to its row meanwhile, a repeated update hears that its handle is stale."""
    async with room(tmp_path, model_file) as there:
        run, other = await learning(there), await learning(there, "other")
        await run.go(LOSSES[:4].tolist())
        await other.go(LOSSES[:40].tolist())
        stored = await there.live.required("other")
        learnt = await there.live.learnt_until(stored)
        (group,) = there.live.groups
        there.live.drop_rows(group, [there.row(other.opened.handle)])
        there.store.gate.clear()
        calls = len(there.store.calls)
        asked = asyncio.create_task(run.update(2))
        await until(lambda: len(there.store.calls) > calls)
        there.live.drop_rows(group, [there.row(run.opened.handle)])
        assert there.live.load(stored, learnt).row == there.row(run.opened.handle)
        there.store.gate.set()
        with raises(Reason.STALE_HANDLE):
            await asked
