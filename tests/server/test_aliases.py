"""What aliases have pointed at: kept, bounded, and gone back through like a stack."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_server.aliases import MAX_CHANGES, AliasChange, Changes, changed, target_before
from mlrs_server.errors import Reason
from mlrs_server.models import ModelCatalog
from tests.server.support import raises
from tests.support.daemon import write_random_model


@pytest.fixture
def catalog(tmp_path: Path) -> ModelCatalog:
    """A catalogue of the models `a`, `b` and `c`."""
    found = ModelCatalog(tmp_path / "d")
    for seed, name in enumerate("abc"):
        found.add_file(write_random_model(tmp_path / f"{name}.safetensors", seed=seed), name)
    return found


def _causes(changes: Changes) -> list[tuple[str, str]]:
    return [(change.target, change.cause) for change in changes]


@pytest.mark.parametrize("length", [MAX_CHANGES, 10 * MAX_CHANGES])
def test_rollbacks_are_a_stack(length: int) -> None:
    """Whatever is set and rolled back, an alias goes back as a stack does, or not at all."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        stack, changes = ["first"], changed((), AliasChange("first", "set", None))
        for number in range(length - 1):
            before = target_before(changes)
            truth = stack[-2] if len(stack) > 1 else None
            assert before == truth or (before is None and number >= MAX_CHANGES)
            if before is not None and rng.random() < 0.48:
                stack.pop()
                changes = changed(changes, AliasChange(stack[-1], "rollback", 0.0))
            else:
                stack.append(str(number))
                changes = changed(changes, AliasChange(stack[-1], "promote", 0.0))
            assert len(changes) <= MAX_CHANGES


def test_an_alias_goes_back(catalog: ModelCatalog) -> None:
    """An alias goes back one by one to where it was first pointed, and no further; each step is told."""
    start = time.time()
    for name in "abc":
        catalog.set_alias("best", name)
    assert catalog.rollback_alias("best").name == "b"
    assert catalog.find("best").name == "b"
    assert catalog.rollback_alias("best").name == "a"
    with raises(Reason.NOTHING_TO_DO, field="alias", match="mlrs models alias"):
        catalog.rollback_alias("best")
    assert catalog.find("best").name == "a"
    catalog.set_alias("best", "c")
    assert catalog.rollback_alias("best").name == "a"
    changes = catalog.alias_changes("best")
    assert _causes(changes) == [
        ("a", "rollback"),
        ("c", "set"),
        ("a", "rollback"),
        ("b", "rollback"),
        ("c", "set"),
        ("b", "set"),
        ("a", "set"),
    ]
    times = [change.time or 0.0 for change in changes]
    assert start <= min(times) <= max(times) <= time.time()
    assert times == sorted(times, reverse=True)


def test_pointing_where_it_points_is_no_change(catalog: ModelCatalog) -> None:
    """An alias that is set to what it is already goes back to what was before that."""
    catalog.set_alias("best", "a")
    catalog.set_alias("best", "b")
    catalog.set_alias("best", "b")
    assert len(catalog.alias_changes("best")) == 2
    assert catalog.rollback_alias("best").name == "a"


def test_changes_are_bounded(catalog: ModelCatalog) -> None:
    """The newest changes of an alias are kept, and those of other aliases are not their business."""
    catalog.set_alias("other", "a")
    for number in range(MAX_CHANGES + 7):
        catalog.set_alias("best", "ab"[number % 2])
    changes = catalog.alias_changes("best")
    assert len(changes) == MAX_CHANGES
    assert changes[0].target == catalog.find("best").name
    assert len(catalog.alias_changes("other")) == 1


def test_the_default_goes_back_to_what_it_came_with(tmp_path: Path, model_file: Path) -> None:
    """The alias `default` has a history before anyone points it: the model that mlrs comes with."""
    catalog = ModelCatalog(tmp_path / "d")
    came_with = catalog.find("default")
    assert _causes(catalog.alias_changes("default")) == [(came_with.name, "set")]
    assert catalog.alias_changes("default")[0].time is None
    catalog.add_file(model_file, "mine")
    catalog.set_alias("default", "mine")
    assert catalog.find("").name == "mine"
    assert catalog.rollback_alias("default").digest == came_with.digest
    assert catalog.find("").digest == came_with.digest


def test_a_daemons_own_default_stays(tmp_path: Path, model_file: Path) -> None:
    """Where `--model` says what the default is, it is neither rolled back nor told another history."""
    ModelCatalog(tmp_path / "d").set_alias("default", "paper")
    catalog = ModelCatalog(tmp_path / "d", default=str(model_file))
    with raises(Reason.INVALID_FIELD, field="alias", match="--model"):
        catalog.rollback_alias("default")
    assert _causes(catalog.alias_changes("default")) == [(catalog.find("small").ref, "set")]


def test_tenants_have_their_own_history(catalog: ModelCatalog) -> None:
    """A tenant's alias of a name goes back by its own changes; what is shared with it stays."""
    catalog.set_alias("best", "a")
    catalog.set_alias("best", "b")
    with raises(Reason.NOTHING_TO_DO, field="alias"):
        catalog.rollback_alias("best", "acme")  # sees the shared one, and has none of its own
    assert _causes(catalog.alias_changes("best", "acme")) == [("b", "set"), ("a", "set")]
    catalog.set_alias("best", "c", "acme")
    assert _causes(catalog.alias_changes("best", "acme")) == [("c", "set"), ("b", "set")]
    assert catalog.rollback_alias("best", "acme").name == "b"
    assert catalog.find("best").name == "b"
    assert catalog.find("best", "evil").name == "b"
    assert len(catalog.alias_changes("best")) == 2
    for what in (catalog.rollback_alias, catalog.alias_changes):
        with raises(Reason.MODEL_NOT_FOUND, field="alias", match="this daemon knows: best, default"):
            what("nobody", "acme")


def test_a_model_that_is_gone_is_not_gone_back_to(catalog: ModelCatalog) -> None:
    """An alias is not pointed at a model that cannot be read any more: the error says so, and it stays."""
    catalog.set_alias("best", (old := catalog.find("a")).ref)
    catalog.set_alias("best", "b")
    again = ModelCatalog(catalog.folder().parent)
    (again.folder() / f"{old.digest}.safetensors").unlink()
    with raises(Reason.MODEL_INVALID, field="model"):
        again.rollback_alias("best")
    assert again.find("best").name == "b"


def test_a_history_survives(catalog: ModelCatalog) -> None:
    """Another process that opens the folder sees the same changes."""
    catalog.set_alias("best", "a")
    catalog.set_alias("best", "b")
    again = ModelCatalog(catalog.folder().parent)
    assert again.alias_changes("best") == catalog.alias_changes("best")
    assert again.rollback_alias("best").name == "a"
    assert catalog.find("best").name == "a"


def test_an_index_of_before_there_was_a_history(catalog: ModelCatalog) -> None:
    """An older file is read; what its aliases point at is where they go back to, of a time nobody knows."""
    catalog.set_alias("best", "a")
    _edit(catalog, lambda fields: fields.pop("changes"))
    again = ModelCatalog(catalog.folder().parent)
    assert again.alias_changes("best") == (AliasChange("a", "set", None),)
    again.set_alias("best", "b")
    assert again.alias_changes("best")[1] == AliasChange("a", "set", None)
    assert again.rollback_alias("best").name == "a"


NEWER = {
    "a column": lambda fields: fields.update(signatures={}),
    "a field of a change": lambda fields: fields["changes"]["best"][0].update(by="somebody"),
    "a cause": lambda fields: fields["changes"]["best"][0].update(cause="vote"),
}
BROKEN = {
    "no change": lambda fields: fields["changes"].update(best=["a"]),
    "no changes": lambda fields: fields.update(changes=["a"]),
    "a time": lambda fields: fields["changes"]["best"][0].update(time="noon"),
    "a target": lambda fields: fields["changes"]["best"][0].update(target=3),
}


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_refused(catalog: ModelCatalog, what: str) -> None:
    """A file with what this version does not know is not read: writing it again would lose that."""
    catalog.set_alias("best", "a")
    _edit(catalog, NEWER[what])
    with raises(Reason.MODEL_INVALID, match="newer version of mlrs .*; upgrade mlrs"):
        ModelCatalog(catalog.folder().parent)


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_history_is_named(catalog: ModelCatalog, what: str) -> None:
    """A file that is no index says so, and what to do."""
    catalog.set_alias("best", "a")
    _edit(catalog, BROKEN[what])
    with raises(Reason.MODEL_INVALID, match=r"index\.json cannot be read: .*; restore it"):
        ModelCatalog(catalog.folder().parent)


def _edit(catalog: ModelCatalog, change: Any) -> None:
    path = catalog.folder() / "index.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")
