"""The engine: what shares a pass changes nothing, and every message is answered whole."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_server import engine
from mlrs_server.errors import Reason
from mlrs_server.runs import AdviceReason, make_handle
from tests.server.support import LOSSES, raises, replayed, room
from tests.support.daemon import write_random_model

CONFIGS = [
    RunConfig(),
    RunConfig(horizon=9, num_classes=10),
    RunConfig(scale=0.3, snapshot=2),
    RunConfig(min_lr=1e-3, max_lr=1e-2),
]


@pytest.mark.parametrize("turns", [1, 2, engine.MAX_TURNS])
@settings(max_examples=25)
@given(data=st.data())
def test_company_changes_nothing(
    turns: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever runs, models, messages and order share its passes, a run's LRs are those it has alone."""
    folder = tmp_path_factory.mktemp("company")

    async def scenario() -> None:
        async with room(folder, write_random_model(folder / "m0.safetensors")) as here:
            for index in (1, 2):
                file = write_random_model(folder / f"m{index}.safetensors", seed=index, hidden_size=4 * index)
                here.catalog.add_file(file, f"m{index}")
            runs = [
                (
                    await here.open(f"run-{index}", CONFIGS[index % 4], model=f"m{index % 3}"),
                    CONFIGS[index % 4],
                )
                for index in range(7)
            ]
            losses: dict[int, list[float]] = {index: [] for index in range(7)}
            lrs: dict[int, list[float]] = {index: [] for index in range(7)}
            for _ in range(data.draw(st.integers(1, 6), label="passes")):
                messages = data.draw(
                    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=3)
                )
                pending = []
                for message in messages:
                    entries = []
                    for index in message:
                        loss = data.draw(st.floats(-10, 10) | st.sampled_from([math.nan, math.inf]))
                        entries.append((runs[index][0].handle, len(losses[index]), loss))
                        losses[index].append(loss)
                    pending.append((message, here.engine.submit(*_arrays(entries))))
                for message, future in pending:
                    answer = await future
                    assert not answer.errors
                    for index, lr in zip(message, answer.lrs, strict=True):
                        lrs[index].append(float(lr))
            for index, (_, config) in enumerate(runs):
                policy = here.catalog.find(f"m{index % 3}").policy
                alone = replayed(policy, config, losses[index])
                assert np.array(lrs[index]).tobytes() == alone.tobytes()

    with pytest.MonkeyPatch.context() as bound:
        bound.setattr(engine, "MAX_TURNS", turns)
        asyncio.run(scenario())


def _arrays(entries: list[tuple[int, int, float]]) -> Any:
    handles, steps, losses = zip(*entries, strict=True)
    return np.array(handles, np.uint64), np.array(steps, np.int64), np.array(losses, np.float64)


async def test_several_steps_of_a_run_share_a_message(tmp_path: Path, model_file: Path) -> None:
    """Steps of one run in one message are taken in order, repeats and gaps among them included."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        steps = [0, 1, 1, 2, 4, 3, 0]
        answer = await here.ask([opened.handle] * 7, steps, LOSSES[steps])
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:4])
        assert answer.lrs[[0, 1, 2, 3, 5, 6]].tobytes() == alone[[0, 1, 1, 2, 3, 0]].tobytes()
        assert answer.errors[4].reason == Reason.STEP_AHEAD
        assert answer.reasons[2] == AdviceReason.REPLAYED


async def test_a_full_queue_is_refused_and_harms_nobody(tmp_path: Path, model_file: Path) -> None:
    """Beyond `max_waiting` a message is refused by that name; those before it are answered."""
    async with room(tmp_path / "d", model_file, max_waiting=3) as here:
        opened = await here.open("a")
        first = here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in (0, 1)]))
        with raises(Reason.QUEUE_FULL, match=r"3 \(max_waiting\)"):
            here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in (2, 3)]))
        last = here.engine.submit(*_arrays([(opened.handle, 2, 1.0)]))
        assert not (await first).errors
        assert not (await last).errors
        assert not (await here.ask([opened.handle] * 3, [3, 4, 5], [1.0] * 3)).errors


async def test_a_message_beyond_the_queue_is_told_to_split(tmp_path: Path, model_file: Path) -> None:
    """What could never wait is not told to come again, however empty the queue is."""
    async with room(tmp_path / "d", model_file, max_waiting=3) as here:
        opened = await here.open("a")
        with raises(Reason.INVALID_FIELD, field="steps", match=r"3 entries here \(max_waiting\).*4; split"):
            here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in range(4)]))


async def test_a_caller_that_goes_away_harms_nobody(tmp_path: Path, model_file: Path) -> None:
    """Its observation counts, and everyone else in the pass is answered."""
    async with room(tmp_path / "d", model_file) as here:
        one, two = await here.open("a"), await here.open("b")
        gone = here.engine.submit(*_arrays([(one.handle, 0, 2.0)]))
        stays = here.engine.submit(*_arrays([(two.handle, 0, 2.0)]))
        gone.cancel()
        assert not (await stays).errors
        again = await here.ask(one.handle, 0, 2.0)
        assert again.reasons.tolist() == [AdviceReason.REPLAYED]


async def test_a_defect_reaches_every_caller(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the kernel fails every caller hears of it, none waits for ever, and the engine goes on."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        with monkeypatch.context() as broken:
            broken.setattr(here.live.groups[0], "policy", None)
            pending = [here.engine.submit(*_arrays([(opened.handle, 0, 2.0)])) for _ in range(3)]
            results = await asyncio.gather(*pending, return_exceptions=True)
        assert all(isinstance(result, AttributeError) for result in results)
        lrs = await here.follow(opened.handle, LOSSES[:3])
        assert lrs.tobytes() == replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:3]).tobytes()


# ------------------------------------------------------------------- many steps of one run


async def test_a_long_replay_lets_others_in(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of many steps of a run takes passes of bounded work; others are answered meanwhile."""
    async with room(tmp_path / "d", model_file) as here:
        long, short = await here.open("a"), await here.open("b")
        group, turns, passes = here.live.groups[0], list[int](), list[int]()
        advance = group.advance
        monkeypatch.setattr(group, "advance", lambda *columns: turns.append(1) or advance(*columns))
        losses = np.resize(LOSSES, 1000)
        replay = here.engine.submit(*_arrays([(long.handle, step, losses[step]) for step in range(1000)]))
        step = 0
        while not replay.done():
            before = len(turns)
            answer = await here.engine.submit(*_arrays([(short.handle, step, LOSSES[step])]))
            passes.append(len(turns) - before)
            assert not answer.errors
            step += 1
        assert passes == [engine.MAX_TURNS] * 3 + [1000 - 3 * engine.MAX_TURNS]
        answer = await replay
        assert not answer.errors
        policy = here.catalog.find("").policy
        assert answer.lrs.tobytes() == replayed(policy, RunConfig(), losses).tobytes()
        assert answer.reasons.tolist() == [AdviceReason.FRESH] * 1000


async def test_a_long_message_mixes_anything(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats, gaps, old steps and strangers in a message of several passes are each what they are."""
    monkeypatch.setattr(engine, "MAX_TURNS", 2)
    async with room(tmp_path / "d", model_file) as here:
        one, two = await here.open("a"), await here.open("b")
        foreign = make_handle(0, 5)
        entries = [(one.handle, 0), (two.handle, 0), (one.handle, 1), (foreign, 0), (one.handle, 1)]
        entries += [(one.handle, 9), (foreign, 0), (one.handle, 2), (foreign, 0), (one.handle, 0)]
        handles, steps = zip(*entries, strict=True)
        answer = await here.ask(handles, steps, LOSSES[list(steps)])
        assert {index: error.reason for index, error in answer.errors.items()} == {
            3: Reason.STALE_HANDLE,
            5: Reason.STEP_AHEAD,
            6: Reason.STALE_HANDLE,
            8: Reason.STALE_HANDLE,
        }
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:3])
        right = [index for index in range(10) if index not in answer.errors]
        assert answer.lrs[right].tolist() == alone[[steps[index] for index in right]].tolist()
        replays = np.flatnonzero(answer.reasons == AdviceReason.REPLAYED)
        assert replays.tolist() == [4, 9]


async def test_messages_of_a_run_keep_their_order(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later message goes on where a long one ends, though it arrived while that was under way."""
    monkeypatch.setattr(engine, "MAX_TURNS", 4)
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        first = here.engine.submit(*_arrays([(opened.handle, step, LOSSES[step]) for step in range(30)]))
        await asyncio.sleep(0)
        second = here.engine.submit(*_arrays([(opened.handle, 30, LOSSES[30])]))
        answers = await asyncio.gather(first, second)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:31])
        assert np.concatenate([answer.lrs for answer in answers]).tobytes() == alone.tobytes()


async def test_a_long_message_counts_while_it_waits(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a long message holds its place in the queue, and frees it."""
    monkeypatch.setattr(engine, "MAX_TURNS", 2)
    async with room(tmp_path / "d", model_file, max_waiting=6) as here:
        opened = await here.open("a")
        first = here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in range(6)]))
        await asyncio.sleep(0)
        with raises(Reason.QUEUE_FULL, match="4 observations are waiting"):
            here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in (6, 7, 8)]))
        assert not (await first).errors
        assert not (await here.ask([opened.handle] * 6, range(6, 12), [1.0] * 6)).errors


async def test_a_long_message_counts_though_its_caller_goes_away(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of it is taken, as if it had been short."""
    monkeypatch.setattr(engine, "MAX_TURNS", 2)
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        gone = here.engine.submit(*_arrays([(opened.handle, step, 1.0) for step in range(6)]))
        await asyncio.sleep(0)
        gone.cancel()
        assert not (await here.ask(opened.handle, 6, 1.0)).errors


async def test_a_defect_ends_a_long_message(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that fails half-way is an error of the whole message, and nothing of it lingers."""
    monkeypatch.setattr(engine, "MAX_TURNS", 2)
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        pending = here.engine.submit(*_arrays([(opened.handle, step, LOSSES[step]) for step in range(6)]))
        await asyncio.sleep(0)
        with monkeypatch.context() as broken:
            broken.setattr(here.live.groups[0], "policy", None)
            with pytest.raises(AttributeError):
                await pending
        lrs = await here.follow(opened.handle, LOSSES[2:5], start=2)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:5])
        assert lrs.tobytes() == alone[2:].tobytes()
