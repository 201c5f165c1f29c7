"""Tags, notes and filtered lists of runs, with a real daemon and both flavours of the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mlrs
from mlrs.errors import InvalidArgumentError, RunNotFoundError
from mlrs.torch import AdvisedLR
from mlrs.types import RunPage
from tests.client.conftest import done
from tests.client.test_contract import items
from tests.support.daemon import Daemon

TEXT = "<b>[red]\N{SNOWMAN} %_\\"
"""Text that means something elsewhere."""


async def begun(advisor: Any, task: str, run_id: str, **options: Any) -> mlrs.types.RunInfo:
    """Make a run with one step; return it."""
    run = advisor.run(task, id=run_id, on_existing="restart", **options)
    run = await run if hasattr(run, "__await__") else run
    await done(run.next_lr(0, 1.0))
    info: mlrs.types.RunInfo = await done(advisor.get_run(run_id))
    return info


async def test_a_run_is_noted_when_it_begins_and_later(asking: Any) -> None:
    """A new run has the tags and the note that it is given, and `update_run` changes them one by one."""
    info = await begun(asking, "noted", "noted/1", tags={"team": TEXT, "empty": ""}, note=f"{TEXT}\nsecond")
    assert (info.tags, info.note) == ({"team": TEXT, "empty": ""}, f"{TEXT}\nsecond")
    info = await done(asking.update_run("noted/1", set_tags={"x": "1"}, remove_tags=["empty", "none"]))
    assert (info.tags, info.note, info.next_step) == ({"team": TEXT, "x": "1"}, f"{TEXT}\nsecond", 1)
    info = await done(asking.update_run("noted/1", note=""))
    assert (info.tags, info.note) == ({"team": TEXT, "x": "1"}, "")
    assert await done(asking.get_run("noted/1")) == info
    assert len({info, info}) == 1
    with pytest.raises(RunNotFoundError):
        await done(asking.update_run("nobody", note="x"))
    with pytest.raises(InvalidArgumentError, match="at most 32 tags, this one would have 34"):
        await done(asking.update_run("noted/1", set_tags={f"t{n}": "" for n in range(32)}))


async def test_runs_of_a_sweep_are_noted(asking: Any) -> None:
    """Every run of a sweep has the tags and the note of the sweep."""
    ids = ["sweep/a", "sweep/b"]
    await done(asking.sweep(ids, tags={"sweep": "first"}, note="together", on_existing="resume"))
    infos = await items(asking.runs(tags={"sweep": "first"}))
    assert [(info.id, info.note) for info in infos] == [(run_id, "together") for run_id in ids]
    with pytest.raises(InvalidArgumentError, match="for every run of a sweep") as caught:
        await done(asking.sweep(ids, note="\N{SNOWMAN}" * 1000))
    assert caught.value.field == "note"


async def test_runs_are_listed_by_page_and_filter(asking: Any) -> None:
    """Pages and iterators have the runs that are meant, in the order that is asked for."""
    for number, kind in enumerate(["pages/b_1", "pages/a-1", "pages/c_1"]):
        await begun(asking, "pages" if number else "other", kind, tags={"n": str(number), "all": ""})
    await begun(asking, "pages", "pages/b_1")
    await done(asking.update_run("pages/b_1", set_tags={"all": "", "n": "3"}))
    chosen: dict[str, Any] = {"tags": {"all": ""}, "prefix": "pages/"}
    wanted = {
        "id": ["pages/a-1", "pages/b_1", "pages/c_1"],
        "created": ["pages/b_1", "pages/c_1", "pages/a-1"],
        "recent": ["pages/b_1", "pages/c_1", "pages/a-1"],
    }
    for order, ids in wanted.items():
        assert [run.id for run in await items(asking.runs(order=order, **chosen))] == ids
        first = await done(asking.run_page(size=2, order=order, **chosen))
        assert isinstance(first, RunPage)
        assert first.cursor
        second = await done(asking.run_page(size=2, order=order, cursor=first.cursor, **chosen))
        assert [run.id for run in (*first.runs, *second.runs)] == ids
        assert second.cursor is None
    assert [run.id for run in (await done(asking.run_page(prefix="pages/"))).runs] == wanted["recent"]
    for filters, ids in [
        ({"contains": "_1"}, ["pages/b_1", "pages/c_1"]),
        ({"contains": "%"}, []),
        ({"tags": {"n": "1", "all": ""}}, ["pages/a-1"]),
        ({"model": "none"}, []),
        ({"task": "pages"}, wanted["id"]),
        ({"task": "other"}, []),
        ({"status": "active", "contains": "a-"}, ["pages/a-1"]),
    ]:
        all_of: Any = {"prefix": "pages/", **filters}
        assert [run.id for run in await items(asking.runs(**all_of))] == ids
        assert [run.id for run in (await done(asking.run_page(order="id", **all_of))).runs] == ids
    model = (await done(asking.get_run("pages/b_1"))).config.model
    assert len(await items(asking.runs(prefix="pages/", model=model))) == 3
    with pytest.raises(InvalidArgumentError, match="same order"):
        await done(asking.run_page(order="created", cursor=first.cursor))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda it: it.run_page(size=0), "size"),
        (lambda it: it.run_page(size=1001), "size"),
        (lambda it: it.run_page(cursor=None), "cursor"),
        (lambda it: it.run_page(order="loss"), "order"),
        (lambda it: it.run_page(tags=["x"]), "tags"),
        (lambda it: it.run_page(tags={"not a name": ""}), "tags"),
        (lambda it: it.run_page(tags={"x": "\x1b"}), "tags['x']"),
        (lambda it: it.run_page(task="not a task"), "task"),
        (lambda it: it.run_page(contains=3), "contains"),
        (lambda it: it.run_page(model=""), "model"),
        (lambda it: items(it.runs(order="id", newest_first=True)), "newest_first"),
        (lambda it: it.update_run("not an id"), "id"),
        (lambda it: it.update_run("a", set_tags={"x": "v" * 257}), "set_tags['x']"),
        (lambda it: it.update_run("a", set_tags={"x": 1}), "set_tags['x']"),
        (lambda it: it.update_run("a", set_tags={f"t{n}": "" for n in range(33)}), "set_tags"),
        (lambda it: it.update_run("a", remove_tags="x"), "remove_tags"),
        (lambda it: it.update_run("a", remove_tags=["not a name"]), "remove_tags"),
        (lambda it: it.update_run("a", note="n" * 4097), "note"),
        (lambda it: it.update_run("a", note="\x9b"), "note"),
        (lambda it: it.update_run("a", note="\ud800"), "note"),
        (lambda it: it.run("task", note=3), "note"),
        (lambda it: it.run("task", tags={"": "x"}), "tags"),
    ],
)
async def test_wrong_arguments_are_named(asking: Any, call: Any, field: str) -> None:
    """What cannot be meant is refused before a call is made."""
    with pytest.raises(InvalidArgumentError) as caught:
        await done(call(asking))
    assert caught.value.field == field


def test_an_adapter_notes_its_run(real: Daemon) -> None:
    """An adapter hands tags and a note to the run that it makes."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with mlrs.connect(real.address, timeout_s=20.0) as advisor:
        options: Any = {"horizon": 10, "tags": {"by": "torch"}, "note": "auto"}
        scheduler = AdvisedLR(optimizer, "adapted", advisor=advisor, **options)
        optimizer.step()
        scheduler.step(1.0)
        (info,) = advisor.runs(prefix="adapted/")
    assert (info.tags, info.note) == ({"by": "torch"}, "auto")


def test_what_is_noted_is_kept_without_a_daemon(real: Daemon, tmp_path: Path) -> None:
    """A run whose daemon never answered has its tags and its note when its observations are sent later."""
    with mlrs.connect(f"unix:{tmp_path}/nobody", timeout_s=0.2, unsent_dir=tmp_path / "unsent") as advisor:
        run = advisor.run(
            "task", id="late", initial_lr=0.1, on_unavailable="fallback", tags={"x": TEXT}, note=TEXT
        )
        assert run.next_lr(0, 1.0) == 0.1
    (file,) = (tmp_path / "unsent").iterdir()
    with mlrs.connect(real.address, timeout_s=20.0) as advisor:
        (info,) = advisor.push(file)
    assert (info.tags, info.note, info.next_step) == ({"x": TEXT}, TEXT, 1)
