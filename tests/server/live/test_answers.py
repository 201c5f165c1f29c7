"""What an observation gets: advice, its answer again, or a refusal."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_server.domain.handles import make_handle
from mlrs_server.domain.ledger import AdviceReason
from mlrs_server.errors import Reason
from mlrs_server.runs.open_request import OpenRequest
from mlrs_server.storage.tables import observations
from tests.server.support import LOSSES, harness, observed, raises, replayed
from tests.support.daemon import write_random_model


async def test_a_repeat_moves_nothing(tmp_path: Path, model_file: Path) -> None:
    """The newest step, sent again with its loss, gets its answer again; the run goes on unmoved."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        first = await here.follow(opened.handle, LOSSES[:5])
        for _ in range(3):
            again = await here.ask(opened.handle, 4, LOSSES[4])
            assert again.lrs.tolist() == [first[4]]
            assert again.reasons.tolist() == [AdviceReason.REPLAYED]
        rest = await here.follow(opened.handle, LOSSES[5:9], start=5)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:9])
        assert np.concatenate([first, rest]).tobytes() == alone.tobytes()


async def test_a_repeated_bad_loss_is_the_same_loss(tmp_path: Path, model_file: Path) -> None:
    """A NaN sent again is a repeat, not another loss."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, [1.0, math.nan])
        again = await here.ask(opened.handle, 1, math.nan)
        assert again.reasons.tolist() == [AdviceReason.REPLAYED]


@pytest.mark.parametrize("step", [0, 3, 4])
async def test_another_loss_is_refused(tmp_path: Path, model_file: Path, step: int) -> None:
    """A step that was answered for another loss is refused; the error says where the run is."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        answer = await here.ask(opened.handle, step, 99.0)
        error = answer.errors[0]
        assert (error.reason, error.field, error.next_step) == (Reason.STALE_STEP, "step", 5)
        assert f"resume_from={step}" in str(error)
        assert math.isnan(answer.lrs[0])
        assert (await here.records.get("a")).snapshot.next_step == 5


async def test_old_steps_are_recalled(tmp_path: Path, model_file: Path) -> None:
    """Any step ever answered is answered again, from the store, in any order and mix."""
    async with harness(tmp_path / "d", model_file) as here:
        one, two = await here.open("a"), await here.open("b", RunConfig(scale=1.0))
        lrs = {
            one.handle: await here.follow(one.handle, LOSSES[:30]),
            two.handle: await here.follow(two.handle, LOSSES[:20]),
        }
        entries = [(one.handle, 7), (two.handle, 0), (one.handle, 0), (one.handle, 29), (two.handle, 18)]
        entries += [(one.handle, 7), (one.handle, 28)]
        handles, steps = zip(*entries, strict=True)
        answer = await here.ask(handles, steps, LOSSES[list(steps)])
        assert not answer.errors
        assert answer.lrs.tolist() == [lrs[handle][step] for handle, step in entries]
        assert set(answer.reasons.tolist()) == {AdviceReason.REPLAYED}


async def test_a_recall_tells_right_from_wrong(tmp_path: Path, model_file: Path) -> None:
    """Of several old steps in a message those with another loss are refused, the others answered."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        lrs = await here.follow(opened.handle, LOSSES[:10])
        losses = np.where(np.arange(8) % 2, LOSSES[:8], -1.0)
        answer = await here.ask([opened.handle] * 8, np.arange(8), losses)
        assert sorted(answer.errors) == [0, 2, 4, 6]
        assert {error.reason for error in answer.errors.values()} == {Reason.STALE_STEP}
        assert answer.lrs[1::2].tolist() == lrs[1:8:2].tolist()


async def test_a_recall_that_fails_is_an_error_of_its_entries(tmp_path: Path, model_file: Path) -> None:
    """When the store cannot be read, old steps get its error and new ones their advice."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        here.store.failing = {"recall"}
        answer = await here.ask([opened.handle] * 3, [0, 1, 5], LOSSES[[0, 1, 5]])
        assert {index: error.reason for index, error in answer.errors.items()} == {
            0: Reason.STORE,
            1: Reason.STORE,
        }
        assert answer.reasons.tolist() == [0, 0, AdviceReason.FRESH]


async def test_what_is_not_stored_is_recalled_while_the_store_fails(tmp_path: Path, model_file: Path) -> None:
    """Old steps that are not stored yet are answered again while the store can be neither read nor written.

    So it is while a flush is under way, after it has failed, and after more steps.
    """
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        lrs = await here.follow(opened.handle, LOSSES[:5])
        here.store.failing = {"append", "recall", "read"}
        here.store.unblocked.clear()
        flushing = asyncio.create_task(here.live.journal.flush())
        async with asyncio.timeout(60):
            while "append" not in here.store.calls:  # noqa: ASYNC110  # until the store's thread has it
                await asyncio.sleep(0.001)
            lrs = np.append(lrs, await here.follow(opened.handle, LOSSES[5:9], start=5))
            steps = [0, 4, 5, 7, 3]
            under_way = await here.ask([opened.handle] * 5, steps, LOSSES[steps])
        here.store.unblocked.set()
        with raises(Reason.STORE):
            await flushing
        after = await here.ask([opened.handle] * 5, steps, LOSSES[steps])
        for answer in (under_way, after):
            assert not answer.errors
            assert answer.lrs.tolist() == lrs[steps].tolist()


@pytest.mark.parametrize("event", ["rewind", "delete"])
async def test_a_recall_of_a_run_that_goes_meanwhile(tmp_path: Path, model_file: Path, event: str) -> None:
    """Steps whose run is rewound or deleted while they are read have a stale handle, and are no damage."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:6])
        await here.live.journal.flush()
        message = observed([opened.handle] * 2, [3, 4], LOSSES[[3, 4]])
        answer = await here.engine.answer(message)
        await (here.open("a", resume_from=2) if event == "rewind" else here.ending.delete("a"))
        await here.recaller.recall(answer)
        assert {index: error.reason for index, error in answer.errors.items()} == {
            0: Reason.STALE_HANDLE,
            1: Reason.STALE_HANDLE,
        }


async def test_a_damaged_record_is_an_error_of_its_steps(tmp_path: Path, model_file: Path) -> None:
    """Old steps whose record is damaged get an error that says so, and those of other runs their answers."""
    async with harness(tmp_path / "d", model_file) as here:
        one, two = await here.open("a"), await here.open("b")
        for opened in (one, two):
            lrs = await here.follow(opened.handle, LOSSES[:4])
        await here.live.journal.flush()
        await here.stored.in_store(lambda store: _spoil(store, "a"))
        answer = await here.ask([one.handle, two.handle, one.handle], [1, 1, 2], LOSSES[[1, 1, 2]])
        assert sorted(answer.errors) == [0, 2]
        assert all("damaged record of run 'a'" in str(error) for error in answer.errors.values())
        assert answer.lrs[1] == lrs[1]


def _spoil(store: Any, run_id: str) -> None:
    key = store.find([run_id])[run_id].key
    with store.transaction() as connection:
        change = observations.update().where(observations.c.run_key == key)
        connection.execute(change.values(record=b"\x00" * 72))


async def test_replaying_a_step_of_a_sweep_reads_all_runs_at_once(tmp_path: Path, model_file: Path) -> None:
    """A message of thousands of old steps needs no SQL if they are not stored, and a few statements if so."""
    count = 4000
    async with harness(tmp_path / "d", model_file) as here:
        requests = [OpenRequest(run_id=f"r{index}") for index in range(count)]
        handles = np.array(
            [
                opened.handle
                for start in range(0, count, 1000)
                for opened in await here.opener.open_many(requests[start : start + 1000])
            ],
            np.uint64,
        )
        losses = np.linspace(0.1, 9.0, count)

        async def asked(step: int) -> bytes:
            answer = await here.ask(handles, np.full(count, step), losses)
            assert not answer.errors
            return answer.lrs.tobytes()

        fresh = [await asked(step) for step in range(4)]
        with _statements() as unstored:
            assert [await asked(step) for step in range(3)] == fresh[:3]
        assert not unstored
        await here.live.journal.flush()
        with _statements() as stored:
            assert [await asked(step) for step in range(3)] == fresh[:3]
        assert 3 <= len(stored) <= 3 * 20


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Collect the SQL statements of all engines."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        found.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


async def test_a_step_ahead_is_refused(tmp_path: Path, model_file: Path) -> None:
    """A step beyond the next is refused, names the one expected, and moves nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        answer = await here.ask([opened.handle] * 2, [4, 3], [1.0, LOSSES[3]])
        assert answer.errors[0].reason == Reason.STEP_AHEAD
        assert answer.errors[0].next_step == 3
        assert list(answer.errors) == [0]
        assert answer.reasons[1] == AdviceReason.FRESH


async def test_a_finished_run_answers_only_what_it_answered(tmp_path: Path, model_file: Path) -> None:
    """A finished run refuses the next step and still repeats the ones it has."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        lrs = await here.follow(opened.handle, LOSSES[:3])
        await here.finish("a")
        answer = await here.ask([opened.handle] * 4, [0, 2, 3, 7], [*LOSSES[[0, 2]], 1.0, 1.0])
        assert answer.lrs[:2].tolist() == lrs[[0, 2]].tolist()
        assert [answer.errors[index].reason for index in (2, 3)] == [Reason.RUN_FINISHED] * 2


async def test_stale_handles_are_refused(tmp_path: Path, model_file: Path) -> None:
    """The handle of a deleted or rewound run, and one of another process, name nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        deleted, rewound, other = [await here.open(name) for name in "abc"]
        await here.follow(rewound.handle, LOSSES[:4])
        await here.ending.delete("a")
        await here.open("b", resume_from=2)
        foreign = make_handle(0, 2)
        answer = await here.ask(
            [deleted.handle, rewound.handle, foreign, other.handle], [0, 2, 0, 0], [1.0] * 4
        )
        assert {error.reason for error in answer.errors.values()} == {Reason.STALE_HANDLE}
        assert sorted(answer.errors) == [0, 1, 2]
        assert answer.reasons[3] == AdviceReason.FRESH


@settings(max_examples=60)
@given(
    garbage=st.lists(
        st.integers(0, 2**64 - 1) | st.integers(0, 2**25) | st.sampled_from([0, 1 << 24, (1 << 63) | 1]),
        min_size=1,
        max_size=20,
    )
)
def test_garbage_handles_touch_nothing(garbage: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any 64 bits that are no handle are refused as stale; every run is as it was."""
    folder = tmp_path_factory.mktemp("garbage")

    async def scenario() -> None:
        async with harness(folder, write_random_model(folder / "m.safetensors")) as here:
            runs = [await here.open(name) for name in "abc"]
            assert not {run.handle for run in runs} & set(garbage)
            answer = await here.ask(
                [*garbage, runs[0].handle], [0] * (len(garbage) + 1), [1.0] * (len(garbage) + 1)
            )
            assert sorted(answer.errors) == list(range(len(garbage)))
            assert {error.reason for error in answer.errors.values()} == {Reason.STALE_HANDLE}
            steps = [(await here.records.get(name)).snapshot.next_step for name in "abc"]
            assert steps == [1, 0, 0]

    asyncio.run(scenario())
