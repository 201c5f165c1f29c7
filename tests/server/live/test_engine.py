"""The engine: what shares a message changes nothing, and every message is answered whole."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_server.domain.handles import make_handle
from mlrs_server.domain.ledger import AdviceReason
from mlrs_server.domain.observations import Entries
from mlrs_server.errors import Reason
from mlrs_server.live import engine
from tests.server.support import LOSSES, harness, observed, replayed
from tests.support.daemon import write_random_model

CONFIGS = [
    RunConfig(),
    RunConfig(horizon=9, num_classes=10),
    RunConfig(scale=0.3, snapshot=2),
    RunConfig(min_lr=1e-3, max_lr=1e-2),
]


@pytest.mark.parametrize("size", [1, 2, engine.SLICE])
@settings(max_examples=25)
@given(data=st.data())
def test_company_changes_nothing(
    size: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever runs and models share its messages, in any order, a run's LRs are those it has alone."""
    folder = tmp_path_factory.mktemp("company")

    async def scenario() -> None:
        async with harness(folder, write_random_model(folder / "m0.safetensors")) as here:
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
            messages = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=12)
            for message in data.draw(messages, label="messages"):
                entries = []
                for index in message:
                    loss = data.draw(st.floats(-10, 10) | st.sampled_from([math.nan, math.inf]))
                    entries.append((runs[index][0].handle, len(losses[index]), loss))
                    losses[index].append(loss)
                answer = await here.engine.answer(_entries(entries))
                assert not answer.errors
                for index, lr in zip(message, answer.entries.lrs, strict=True):
                    lrs[index].append(float(lr))
            for index, (_, config) in enumerate(runs):
                policy = here.catalog.find(f"m{index % 3}").policy
                alone = replayed(policy, config, losses[index])
                assert np.array(lrs[index]).tobytes() == alone.tobytes()

    with pytest.MonkeyPatch.context() as bound:
        bound.setattr(engine, "SLICE", size)
        asyncio.run(scenario())


def _entries(rows: list[tuple[int, int, float]]) -> Entries:
    return observed(*zip(*rows, strict=True))


async def test_several_steps_of_a_run_share_a_message(tmp_path: Path, model_file: Path) -> None:
    """Steps of one run in one message are taken in order, repeats and gaps among them included."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        steps = [0, 1, 1, 2, 4, 3, 0]
        answer = await here.ask([opened.handle] * 7, steps, LOSSES[steps])
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:4])
        assert answer.lrs[[0, 1, 2, 3, 5, 6]].tobytes() == alone[[0, 1, 1, 2, 3, 0]].tobytes()
        assert answer.errors[4].reason == Reason.STEP_AHEAD
        assert answer.reasons[2] == AdviceReason.REPLAYED


async def test_a_defect_moves_nothing(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the kernel fails the caller hears of it, and every run in the message is as it was."""
    async with harness(tmp_path / "d", model_file) as here:
        one, two = await here.open("a"), await here.open("b")
        await here.follow(one.handle, LOSSES[:2])
        with monkeypatch.context() as broken:
            broken.setattr(here.live.groups[0], "policy", None)
            handles = [one.handle, two.handle, one.handle, one.handle]
            with pytest.raises(AttributeError):
                await here.ask(handles, [2, 0, 3, 3], [9.0, 9.0, 9.0, 9.0])
        assert (await here.ask(one.handle, 1, LOSSES[1])).reasons.tolist() == [AdviceReason.REPLAYED]
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:4])
        assert (await here.follow(one.handle, LOSSES[2:4], start=2)).tobytes() == alone[2:].tobytes()
        assert (await here.follow(two.handle, LOSSES[:4])).tobytes() == alone.tobytes()


# ------------------------------------------------------------------- many steps of one run


async def test_a_long_message_lets_others_in(tmp_path: Path, model_file: Path) -> None:
    """A message of many entries is answered in slices; others are answered in between."""
    async with harness(tmp_path / "d", model_file) as here:
        long, short = await here.open("a"), await here.open("b")
        losses = np.resize(LOSSES, 4 * engine.SLICE - 5)
        rows = [(long.handle, step, losses[step]) for step in range(len(losses))]
        whole = asyncio.create_task(here.engine.answer(_entries(rows)))
        next_steps = []
        for step in range(3):
            assert not (await here.ask(short.handle, step, LOSSES[step])).errors
            next_steps.append(int(here.live.groups[0].records["next_step"][here.row(long.handle)]))
        answer = await whole
        lrs, reasons = answer.entries.lrs, answer.entries.reasons
        assert next_steps == [engine.SLICE, 2 * engine.SLICE, 3 * engine.SLICE]
        assert not answer.errors
        policy = here.catalog.find("").policy
        assert lrs.tobytes() == replayed(policy, RunConfig(), losses).tobytes()
        assert reasons.tolist() == [AdviceReason.FRESH] * len(losses)


@pytest.mark.parametrize("size", [2, engine.SLICE])
async def test_a_long_message_mixes_anything(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Repeats, gaps, old steps and strangers in a message of several slices are each what they are."""
    monkeypatch.setattr(engine, "SLICE", size)
    async with harness(tmp_path / "d", model_file) as here:
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


async def test_another_loss_within_a_message_is_refused(tmp_path: Path, model_file: Path) -> None:
    """A step that is there twice with two losses counts once, also when the run goes on after it."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        answer = await here.ask([opened.handle] * 4, [0, 0, 1, 1], [2.0, 3.0, 1.5, 7.0])
        assert {index: error.reason for index, error in answer.errors.items()} == {
            1: Reason.STALE_STEP,
            3: Reason.STALE_STEP,
        }
        alone = replayed(here.catalog.find("").policy, RunConfig(), [2.0, 1.5])
        assert answer.lrs[[0, 2]].tobytes() == alone.tobytes()


async def test_a_message_cut_short_can_be_sent_again(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a caller goes away in the middle of a long message, the same message, sent again, is completed."""
    monkeypatch.setattr(engine, "SLICE", 2)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        message = [opened.handle] * 6, range(6), LOSSES[:6]
        gone = asyncio.create_task(here.engine.answer(observed(*message)))
        await asyncio.sleep(0)
        gone.cancel()
        answer = await here.ask(*message)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:6])
        assert answer.lrs.tobytes() == alone.tobytes()
        assert answer.reasons[0] == AdviceReason.REPLAYED
        assert answer.reasons[5] == AdviceReason.FRESH
