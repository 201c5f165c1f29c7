"""New versions of models, of runs in memory and in the store."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlrs_core.config import AdaptScope, MetaConfig, RunConfig
from mlrs_core.policy import Floats
from mlrs_server.errors import Reason
from mlrs_server.meta import promotion
from mlrs_server.meta.promotion import PromoteRequest, Promotion
from mlrs_server.storage import Store, StoredRun
from tests.server.meta.support import META, Held, Learning, learning
from tests.server.support import LOSSES, Harness, harness, raises, until
from tests.support.daemon import write_random_model

MODEL_SCOPE = replace(META, meta=MetaConfig(scope=AdaptScope.MODEL, every=1, learning_rate=0.01))
"""A run that learns for its model."""
ASKED = PromoteRequest(model="small")


def _promotion(there: Harness) -> Promotion:
    return Promotion(there.live, there.stored, there.catalog)


async def _adapted(
    there: Harness, *run_ids: str, steps: int = 12, config: RunConfig = MODEL_SCOPE
) -> list[Learning]:
    runs = [await learning(there, run_id, config) for run_id in run_ids]
    for number, run in enumerate(runs):
        await run.go(LOSSES[number : number + steps].tolist())
    return runs


def _own(there: Harness, run_id: str) -> Floats:
    """Return the weights of a run in memory, as its row has them."""
    live = there.live.find(run_id)
    assert live is not None
    return live.group.networks[live.row, : live.group.policy.network_size // 4].astype(np.float64)


async def test_a_version_is_the_mean_of_its_runs(tmp_path: Path, model_file: Path) -> None:
    """Runs of the model that learn for it count, once each, and no others; its name stays where it was."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a", "c")
        await _adapted(there, "b", steps=24)
        await _adapted(there, "selfish", config=META)
        await there.open("frozen")
        there.catalog.add_file(write_random_model(tmp_path / "x.safetensors", seed=4), "other")
        await there.open("elsewhere", MODEL_SCOPE, model="other")
        parent = there.catalog.find("small")
        made = await _promotion(there).promote(replace(ASKED, alias="best"), "")
        assert made.model is not None
        assert [(run.run_id, run.updates, run.next_step) for run in made.named] == [
            ("a", 4, 12),
            ("b", 8, 24),
            ("c", 4, 12),
        ]
        policy = made.model.model.adaptive_policy(MetaConfig())
        new = policy.first_network()[: policy.network_size // 4]
        mean = np.mean([_own(there, run_id) for run_id in "abc"], axis=0)
        np.testing.assert_allclose(new, mean, rtol=1e-6, atol=1e-7)
        assert 0 < made.relative_change < max(run.relative_change for run in made.named)
        assert there.catalog.find("small").digest == parent.digest
        assert there.catalog.find("best").digest == made.model.digest
        assert there.catalog.find(made.model.ref).model.provenance["parent"] == f"small@{parent.digest}"
        assert [change.cause for change in there.catalog.alias_changes("best")] == ["promote"]


async def test_the_same_runs_give_the_same_bits(tmp_path: Path, model_file: Path) -> None:
    """In memory, after a restart, from the store or a page at a time: the version has one digest."""
    digests = set()
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, *"dbaec")
        for _ in range(2):
            made = await _promotion(there).promote(ASKED, "")
            digests.add(made.model and made.model.digest)
    async with harness(tmp_path / "d", model_file) as there:
        await there.open("b")  # in memory again, the others are not
        made = await _promotion(there).promote(ASKED, "")
        digests.add(made.model and made.model.digest)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(promotion, "PAGE", 2)
            made = await _promotion(there).promote(ASKED, "")
            digests.add(made.model and made.model.digest)
            assert made.count == 5
    assert len(digests) == 1


async def test_runs_can_be_chosen(tmp_path: Path, model_file: Path) -> None:
    """By the beginning of their ids and by their updates; a dry run says who, and makes nothing."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "x/1", "x/2", "y/1")
        await _adapted(there, "x/long", steps=30)
        promote = _promotion(there).promote
        before = [model.ref for model in there.catalog.page()]
        for asked, wanted in [
            ({"prefix": "x/"}, ["x/1", "x/2", "x/long"]),
            ({"min_updates": 5}, ["x/long"]),
            ({"prefix": "y", "min_updates": 4}, ["y/1"]),
        ]:
            made = await promote(replace(ASKED, alias="best", dry_run=True, **asked), "")
            assert [run.run_id for run in made.named] == wanted
            assert made.model is None
            assert made.relative_change > 0
        assert [model.ref for model in there.catalog.page()] == before
        with raises(Reason.MODEL_NOT_FOUND):
            there.catalog.find("best")


@pytest.mark.parametrize("asked", [{}, {"prefix": "x"}, {"min_updates": 5}], ids=str)
async def test_nothing_learnt_is_nothing_to_promote(
    tmp_path: Path, model_file: Path, asked: dict[str, object]
) -> None:
    """Without a run that counts, the error names the model and the ways out."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "selfish", config=META)
        await _adapted(there, "young", steps=2)
        if asked:
            await _adapted(there, "little")
        with raises(Reason.NOTHING_TO_DO, field="model", match="small@.*ADAPT_SCOPE_MODEL.*fewer updates"):
            await _promotion(there).promote(replace(ASKED, **asked), "")  # type: ignore[arg-type]


async def test_updates_that_moved_nothing_are_no_voice(tmp_path: Path, model_file: Path) -> None:
    """A run whose updates were all idle has not adapted its network."""
    async with harness(tmp_path / "d", model_file) as there:
        idle = await learning(there, "idle", MODEL_SCOPE)
        await there.ask(idle.opened.handle, 0, 2.0)
        await idle.update(0, 0.0)
        with raises(Reason.NOTHING_TO_DO):
            await _promotion(there).promote(ASKED, "")


async def test_a_wrong_alias_is_found_before_the_work(tmp_path: Path, model_file: Path) -> None:
    """An alias that cannot be one is refused, and nothing is made."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a")
        count = len(there.catalog.page())
        for alias in ("Best!", "small", "default"):
            with raises(Reason.INVALID_FIELD, field="alias"):
                await _promotion(there).promote(replace(ASKED, alias=alias), "")
        assert len(there.catalog.page()) == count


async def test_a_version_of_a_version(tmp_path: Path, model_file: Path) -> None:
    """Runs of a new version make the next one; runs of the old one do not count for it, and keep theirs."""
    async with harness(tmp_path / "d", model_file) as there:
        (old,) = await _adapted(there, "old")
        promote = _promotion(there).promote
        first = await promote(replace(ASKED, alias="best"), "")
        new = Learning(there, await there.open("new", MODEL_SCOPE, model="best"), old.adaptation)
        await new.go(LOSSES[:9].tolist())
        second = await promote(replace(ASKED, model="best", alias="best"), "")
        assert first.model is not None
        assert second.model is not None
        assert [run.run_id for run in second.named] == ["new"]
        assert second.model.model.provenance["parent"] == f"small@{first.model.digest}"
        assert there.catalog.rollback_alias("best").digest == first.model.digest
        assert (await there.open("old")).view.model_ref == there.catalog.find("small").ref


async def test_a_shipped_model_gets_a_version(tmp_path: Path) -> None:
    """The model that comes with mlrs can be promoted: all its snapshots, and what it says of itself stays."""
    async with harness(tmp_path / "d", None) as there:
        await _adapted(there, "a", steps=120)
        parent = there.catalog.find("")
        made = await _promotion(there).promote(PromoteRequest(model="", alias="default"), "")
        assert made.model is not None
        assert made.model.name == parent.name == there.catalog.find("").name
        assert made.model.model.architecture == parent.model.architecture
        assert there.catalog.find("").digest == made.model.digest != parent.digest
        assert there.catalog.find(parent.name).digest == parent.digest
        assert (await there.open("b")).view.model_ref == made.model.ref
        assert there.catalog.rollback_alias("default").digest == parent.digest


async def test_what_was_read_is_stored_first(tmp_path: Path, model_file: Path) -> None:
    """A version is of nothing that the store does not have: where it cannot be written, none is made."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a")
        count = len(there.catalog.page())
        there.store.failing.add("append")
        with raises(Reason.STORE):
            await _promotion(there).promote(ASKED, "")
        assert len(there.catalog.page()) == count
        there.store.failing.clear()
        assert (await _promotion(there).promote(ASKED, "")).count == 1


async def test_one_at_a_time(tmp_path: Path, model_file: Path) -> None:
    """Promotions run one after another, and runs are advised while one waits for the store."""
    async with harness(tmp_path / "d", model_file) as there:
        (run,) = await _adapted(there, "a")
        await there.live.journal.flush()
        make = _promotion(there).promote
        there.store.unblocked.clear()
        there.store.passing.add("model_index")
        tasks = [asyncio.create_task(make(replace(ASKED, alias=f"best-{n}"), "")) for n in range(3)]
        await until(lambda: there.store.calls[-1] == "list")
        answer = await there.ask(run.opened.handle, 12, 1.5)
        assert not answer.errors
        assert there.store.calls.count("list") == 1
        there.store.unblocked.set()
        made = await asyncio.gather(*tasks)
        assert len({one.model and one.model.digest for one in made}) == 1


async def test_others_are_stored_while_a_promotion_computes(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While adapted weights are computed again for a new version, the answers of other runs are stored."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a", "b")
        expected = await _promotion(there).promote(ASKED, "")
    held = Held(monkeypatch)
    async with harness(tmp_path / "d", model_file) as there:
        other = (await there.open("other")).handle
        making = asyncio.create_task(_promotion(there).promote(ASKED, ""))
        async with asyncio.timeout(20):
            await until(held.begun.is_set)
            await there.follow(other, LOSSES[:5])
            await there.live.journal.flush()
            assert (await there.records.get("other")).durable_step == 4
            assert not making.done()
            held.unblocked.set()
            made = await making
        assert made.count == 2
        assert made.model is not None
        assert expected.model is not None
        assert made.model.digest == expected.model.digest


async def test_a_run_that_a_promotion_reads_stays_as_it_is(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewind that is asked for while a promotion computes a run comes after it, and both are right."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a")
        expected = await _promotion(there).promote(ASKED, "")
    held = Held(monkeypatch)
    async with harness(tmp_path / "d", model_file) as there:
        making = asyncio.create_task(_promotion(there).promote(ASKED, ""))
        async with asyncio.timeout(20):
            await until(held.begun.is_set)
            rewinding = asyncio.create_task(there.open("a", MODEL_SCOPE, resume_from=2))
            await there.stored.in_store(lambda _: None)
            held.unblocked.set()
            made = await making
            assert (await rewinding).view.snapshot.next_step == 2
        assert made.model is not None
        assert expected.model is not None
        assert made.model.digest == expected.model.digest


async def test_runs_that_go_meanwhile_are_left_out(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is deleted after it was listed does not count, and is no error."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a", "b")
    async with harness(tmp_path / "d", model_file) as there:
        page = promotion._page

        def then_delete(store: Store, **wanted: str) -> list[StoredRun]:
            runs = page(store, **wanted)
            store.delete(runs[0])
            return runs

        monkeypatch.setattr(promotion, "_page", then_delete)
        made = await _promotion(there).promote(ASKED, "")
        assert [run.run_id for run in made.named] == ["b"]


async def test_a_damaged_run_is_named(tmp_path: Path, model_file: Path) -> None:
    """A run whose record is damaged fails the promotion, which names it."""
    async with harness(tmp_path / "d", model_file) as there:
        await _adapted(there, "a", "b", steps=15)
    with sqlite3.connect(tmp_path / "d/mlrs.sqlite3") as database:
        database.execute("DELETE FROM observations WHERE run_key = (SELECT key FROM runs WHERE run_id = 'b')")
    database.close()
    async with harness(tmp_path / "d", model_file) as there:
        with raises(Reason.DAMAGED, match="'b'"):
            await _promotion(there).promote(ASKED, "")
        assert (await _promotion(there).promote(replace(ASKED, prefix="a"), "")).count == 1
