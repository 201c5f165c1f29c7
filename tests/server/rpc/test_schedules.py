"""Runs that follow a schedule: stored, resumed, rewound and refused like any other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlrs_core.config import Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import Floats
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_proto import v1 as pb
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live import arrays as runs
from mlrs_server.live import run_groups
from mlrs_server.runs.open_request import Opened
from tests.server.support import LOSSES, advised, create, harness, raises, refused, replayed, service

HORIZON = 60


def config_of(kind: ScheduleKind, **numbers: Any) -> RunConfig:
    """Return the config of a run over 60 steps that follows a schedule."""
    return RunConfig(horizon=HORIZON, schedule=ScheduleSpec(kind, **numbers))


def alone(config: RunConfig, losses: Floats = LOSSES[:HORIZON]) -> Floats:
    """Return the LRs of an undisturbed run."""
    assert config.schedule is not None
    return replayed(schedule_policy(config.schedule), config, losses)


@pytest.mark.parametrize("kind", ScheduleKind, ids=lambda kind: kind.spelling)
async def test_a_run_continues_after_a_crash(tmp_path: Path, model_file: Path, kind: ScheduleKind) -> None:
    """A run read back from the store, and one rewound, get the bits of a run that was not disturbed."""
    config = config_of(kind, base_lr=0.2, warmup=5)
    expected = alone(config)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", config)
        first = await here.follow(opened.handle, LOSSES[:30])
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        assert opened.view.config == RunConfig(horizon=HORIZON, schedule=config.schedule.resolved())
        rest = await here.follow(opened.handle, LOSSES[30:HORIZON], start=30)
        again = await here.open("a", resume_from=17)
        redone = await here.follow(again.handle, LOSSES[17:HORIZON], start=17)
    assert np.concatenate([first, rest]).tobytes() == expected.tobytes()
    assert redone.tobytes() == expected[17:].tobytes()


async def test_runs_of_one_shape_share_a_group(tmp_path: Path, model_file: Path) -> None:
    """Runs that differ in base LR and warmup are computed together, and each gets its own LRs."""
    some = [config_of(ScheduleKind.COSINE, base_lr=0.1 * n, warmup=n) for n in range(1, 6)]
    async with harness(tmp_path / "d", model_file) as here:
        handles = [(await here.open(f"run-{n}", config)).handle for n, config in enumerate(some)]
        await here.open("other", config_of(ScheduleKind.COSINE, final_lr=0.1))
        assert [len(group.run_ids) - len(group._free) for group in here.live.groups] == [5, 1]
        lrs = [(await here.ask(handles, [step] * 5, [1.0] * 5)).lrs for step in range(HORIZON)]
    expected = [alone(config, np.ones(HORIZON)) for config in some]
    assert np.array(lrs).T.tobytes() == np.array(expected).tobytes()


async def test_defaults_are_stored(tmp_path: Path, model_file: Path) -> None:
    """A run is stored with the defaults it was created with; a resume may name them, and no others."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", config_of(ScheduleKind.WSD))
        assert opened.view.config.schedule == ScheduleSpec(
            ScheduleKind.WSD, warmup=0, final_lr=0.0, cooldown_fraction=0.2
        )
        await here.open("a", config_of(ScheduleKind.WSD, cooldown_fraction=0.2))
        with raises(Reason.CONFIG_MISMATCH, field="config.schedule.cooldown_fraction", match=r"0\.2.*0\.3"):
            await here.open("a", config_of(ScheduleKind.WSD, cooldown_fraction=0.3))


async def test_a_run_lacking_its_base_lr_may_be_given_one(tmp_path: Path, model_file: Path) -> None:
    """Before its first observation a run takes a base LR and an optimizer; after it, neither."""
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("a", config_of(ScheduleKind.CONSTANT))).handle
        await here.open("a", RunConfig(optimizer=Optimizer.ADAM))
        assert await here.follow(handle, [1.0]) == [1e-3]
        with raises(Reason.CONFIG_MISMATCH, field="config.schedule.base_lr", match="with no value"):
            await here.open("a", config_of(ScheduleKind.CONSTANT, base_lr=0.5))
        handle = (await here.open("b", config_of(ScheduleKind.CONSTANT))).handle
        await here.open("b", config_of(ScheduleKind.CONSTANT, base_lr=0.5))
        assert await here.follow(handle, [1.0]) == [0.5]


async def test_policies_are_never_exchanged(tmp_path: Path, model_file: Path) -> None:
    """A run with a schedule takes no model and no other schedule, one with a model no schedule."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("scheduled", config_of(ScheduleKind.COSINE))
        await here.open("modelled")
        with raises(Reason.CONFIG_MISMATCH, field="model", match="with the schedule cosine"):
            await here.open("scheduled", model="paper")
        with raises(Reason.CONFIG_MISMATCH, field="config.schedule.kind", match=r"with cosine, .* linear"):
            await here.open("scheduled", config_of(ScheduleKind.LINEAR))
        with raises(Reason.CONFIG_MISMATCH, field="config.schedule", match="the schedule one-cycle"):
            await here.open("modelled", config_of(ScheduleKind.ONE_CYCLE))
        with raises(Reason.INVALID_FIELD, field="config.schedule", match="a model or a schedule"):
            await here.open("both", config_of(ScheduleKind.COSINE), model="paper")


async def test_a_bad_loss_is_held(tmp_path: Path, model_file: Path) -> None:
    """A non-finite loss holds the last LR under a schedule too, and the step after it is the schedule's."""
    config = config_of(ScheduleKind.LINEAR, base_lr=1.0)
    async with harness(tmp_path / "d", model_file) as here:
        handle = (await here.open("a", config)).handle
        lrs = await here.follow(handle, [1.0, float("nan"), 1.0])
    assert lrs.tolist() == pytest.approx([1.0, 1.0, 58 / 60])


async def test_running_out_of_groups_is_an_error_until_one_is_empty(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every group taken a new shape is refused and not created; once a group is empty, it is taken."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 3)
    some = [config_of(ScheduleKind.COSINE, final_lr=n / 10) for n in range(5)]
    async with harness(tmp_path / "d", model_file) as here:
        handles = [(await here.open(f"run-{n}", some[n])).handle for n in range(3)]
        with raises(
            Reason.MEMORY_FULL, field="config.schedule", match="3 different models, .* schedule shapes"
        ):
            await here.open("run-3", some[3])
        assert (await here.open("more", config_of(ScheduleKind.COSINE, base_lr=9.0))).created
        with raises(Reason.RUN_NOT_FOUND):
            await here.open("run-3", mode="resume")
        await here.follow(handles[1], LOSSES[:3])
        await here.ending.delete("run-1")
        opened = await here.open("run-3", some[3])
        assert opened.created
        lrs = await here.follow(opened.handle, LOSSES[:20])
        stale = await here.ask(handles[1], 3, 1.0)
        assert stale.errors[0].reason == Reason.STALE_HANDLE
        unchanged = await here.follow(handles[2], LOSSES[:20])
        with raises(Reason.MEMORY_FULL):
            await here.open("run-1", some[1])
        await here.ending.delete("run-2")
        back = await here.follow((await here.open("run-1", some[1])).handle, LOSSES[:20])
    assert back.tobytes() == alone(some[1])[:20].tobytes()
    assert lrs.tobytes() == alone(some[3])[:20].tobytes()
    assert unchanged.tobytes() == alone(some[2])[:20].tobytes()


async def test_running_out_of_rows_is_an_error(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every row of a group taken, a run of its shape is refused, and one of another shape is not."""
    monkeypatch.setattr(runs, "MAX_ROWS", 8)
    async with harness(tmp_path / "d", model_file) as here:
        for number in range(8):
            await here.open(f"run-{number}", config_of(ScheduleKind.COSINE))
        with raises(Reason.MEMORY_FULL, field="config.schedule", match="8 runs of one model or schedule"):
            await here.open("one-more", config_of(ScheduleKind.COSINE))
        await here.open("other", config_of(ScheduleKind.LINEAR))
        await here.ending.delete("run-3")
        assert (await here.open("one-more", config_of(ScheduleKind.COSINE))).created


async def test_finished_runs_free_groups_for_other_shapes(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every group taken, one whose runs are all finished is used again; they can still be read."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 2)
    some = [config_of(ScheduleKind.COSINE, final_lr=n / 10) for n in range(5)]
    async with harness(tmp_path / "d", model_file) as here:
        active = await here.open("active", some[0])
        for number in range(1, 5):
            opened = await here.open(f"run-{number}", some[number])
            await here.follow(opened.handle, LOSSES[:5])
            await here.finish(f"run-{number}")
        assert (await here.follow(active.handle, LOSSES[:20])).tobytes() == alone(some[0])[:20].tobytes()
        assert (await here.records.get("run-1")).snapshot.next_step == 5
        again = await here.open("run-2", resume_from=5)
        rest = await here.follow(again.handle, LOSSES[5:20], start=5)
        with raises(Reason.MEMORY_FULL, match="finish or delete"):
            await here.open("run-3", resume_from=2)
        assert (await here.records.get("run-3")).snapshot.next_step == 5
    assert rest.tobytes() == alone(some[2])[5:20].tobytes()


async def test_finished_runs_free_rows_for_runs_of_their_shape(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every row of a group taken, a finished run's row is reused; its handle is stale from then on."""
    monkeypatch.setattr(runs, "MAX_ROWS", 8)
    async with harness(tmp_path / "d", model_file) as here:
        handles = [(await here.open(f"run-{n}", config_of(ScheduleKind.COSINE))).handle for n in range(8)]
        await here.finish("run-3")
        finished = await here.ask(handles[3], 0, 1.0)
        assert finished.errors[0].reason == Reason.RUN_FINISHED
        assert (await here.open("one-more", config_of(ScheduleKind.COSINE))).created
        dropped = await here.ask(handles[3], 0, 1.0)
        assert dropped.errors[0].reason == Reason.STALE_HANDLE
        with raises(Reason.MEMORY_FULL):
            await here.open("another", config_of(ScheduleKind.COSINE))


async def test_a_run_that_a_call_is_about_stays(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of a run that is being finished is not reused yet: the call may fail, and the run continues."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", config_of(ScheduleKind.COSINE))
        here.store.unblocked.clear()
        here.store.failing = {"finish"}
        finishing = asyncio.create_task(here.finish("a"))
        other = asyncio.create_task(here.open("b", config_of(ScheduleKind.LINEAR)))
        await asyncio.sleep(0)
        here.store.unblocked.set()
        with raises(Reason.STORE):
            await finishing
        with raises(Reason.MEMORY_FULL):
            await other
        lrs = await here.follow(opened.handle, LOSSES[:5])
    assert lrs.tobytes() == alone(config_of(ScheduleKind.COSINE))[:5].tobytes()


async def test_the_last_group_goes_to_one_of_two(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs created at once with one free group, one is; the other is refused and not stored."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with harness(tmp_path / "d", model_file) as here:
        results = await asyncio.gather(
            here.open("a", config_of(ScheduleKind.COSINE)),
            here.open("b", config_of(ScheduleKind.LINEAR)),
            return_exceptions=True,
        )
        (refusal,) = [result for result in results if isinstance(result, AdvisorError)]
        assert refusal.reason == Reason.MEMORY_FULL
        stored = await here.records.list(prefix="", status=None, after="", limit=9)
    (opened,) = [result for result in results if isinstance(result, Opened)]
    assert [view.run_id for view in stored] == [opened.view.run_id]


async def test_a_run_that_cannot_be_stored_frees_its_slot(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store refuses a new run, its reserved slot is free for the next."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with harness(tmp_path / "d", model_file) as here:
        here.store.failing = {"create"}
        with raises(Reason.STORE):
            await here.open("a", config_of(ScheduleKind.COSINE))
        here.store.failing = set()
        assert (await here.open("b", config_of(ScheduleKind.LINEAR))).created


async def test_a_rewound_run_keeps_its_slot(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run is rewound, no other run gets its slot, and it continues there."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with harness(tmp_path / "d", model_file) as here:
        before = await here.open("a", config_of(ScheduleKind.COSINE))
        await here.follow(before.handle, LOSSES[:9])
        rewound, refusal = await asyncio.gather(
            here.open("a", resume_from=4),
            here.open("b", config_of(ScheduleKind.LINEAR)),
            return_exceptions=True,
        )
        assert isinstance(refusal, AdvisorError)
        assert refusal.reason == Reason.MEMORY_FULL
        assert isinstance(rewound, Opened)
        lrs = await here.follow(rewound.handle, LOSSES[4:20], start=4)
    assert lrs.tobytes() == alone(config_of(ScheduleKind.COSINE))[4:20].tobytes()


async def test_a_refused_run_stores_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is refused for lack of memory leaves no shipped model in the data folder."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with harness(tmp_path / "d", None) as here:
        await here.open("a", config_of(ScheduleKind.COSINE))
        with raises(Reason.MEMORY_FULL, field="model"):
            await here.open("b")
    assert not list((tmp_path / "d").rglob("*.safetensors"))


# ------------------------------------------------------------------------------------ the wire

COSINE = pb.Schedule(base_lr=0.2, warmup=5, cosine=pb.Schedule.Cosine())


async def test_the_wire_shows_the_schedule(tmp_path: Path, model_file: Path) -> None:
    """GetRun and ListRuns show a run's schedule with its defaults, and no model."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "a", horizon=HORIZON, schedule=COSINE)
        lrs = await advised(stub, "a", LOSSES[:10])
        got = (await stub.GetRun(pb.GetRunRequest(run_id="a"), timeout=20)).run
        (listed,) = (await stub.ListRuns(pb.ListRunsRequest(), timeout=20)).runs
    assert got.config == listed.config
    assert got.config.model == ""
    assert got.config.schedule == pb.Schedule(base_lr=0.2, warmup=5, cosine=pb.Schedule.Cosine(final_lr=0.0))
    assert lrs == alone(config_of(ScheduleKind.COSINE, base_lr=0.2, warmup=5))[:10].tolist()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"schedule": COSINE}, "config.horizon"),
        ({"schedule": COSINE, "horizon": 5}, "config.schedule.warmup"),
        ({"schedule": COSINE, "horizon": 60, "model": "small"}, "config.schedule"),
        ({"schedule": pb.Schedule(), "horizon": 60}, "config.schedule.kind"),
        ({"schedule": {"constant": {}, "base_lr": -1.0}}, "config.schedule.base_lr"),
        ({"schedule": {"exponential": {"factor": 1.5}}}, "config.schedule.factor"),
        ({"schedule": {"multi_step": {"milestones": [4, 4]}}}, "config.schedule.milestones"),
        ({"schedule": {"sgdr": {"period": 2**60}}}, "config.schedule.period"),
    ],
)
async def test_bad_schedules_are_refused_by_field(
    tmp_path: Path, model_file: Path, config: dict[str, Any], field: str
) -> None:
    """A schedule that is wrong, or lacks its horizon, is INVALID_ARGUMENT and names the field."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        request = pb.OpenRunRequest(run_id="a", config=pb.RunConfig(**config))
        refusal = await refused(stub.OpenRun(request, timeout=20))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.message.startswith(f"{field}: ")


async def test_a_full_memory_is_resource_exhausted(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the wire, a run for which there is no group left is RESOURCE_EXHAUSTED."""
    monkeypatch.setattr(run_groups, "MAX_GROUPS", 1)
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "a")
        request = pb.OpenRunRequest(run_id="b", config=pb.RunConfig(horizon=60, schedule=COSINE))
        refusal = await refused(stub.OpenRun(request, timeout=20))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
