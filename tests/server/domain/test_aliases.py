"""The history of aliases: stored, bounded, and rolled back like a stack."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mlrs_server.domain.aliases import MAX_CHANGES, AliasChange, Changes, changed, target_before
from mlrs_server.errors import Reason
from mlrs_server.models.catalog import ModelCatalog
from tests.server.models.catalogs import Catalogs
from tests.server.support import raises
from tests.support.daemon import write_random_model


@pytest.fixture
def catalog(catalogs: Catalogs, tmp_path: Path) -> ModelCatalog:
    """A catalogue of the models `a`, `b` and `c`."""
    found = catalogs()
    for seed, name in enumerate("abc"):
        found.add_file(write_random_model(tmp_path / f"{name}.safetensors", seed=seed), name)
    return found


def _causes(changes: Changes) -> list[tuple[str, str]]:
    return [(change.target, change.cause) for change in changes]


@pytest.mark.parametrize("length", [MAX_CHANGES, 10 * MAX_CHANGES])
def test_rollbacks_are_a_stack(length: int) -> None:
    """After any changes, a rollback pops a stack, or fails if it is empty."""
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


def test_an_alias_is_rolled_back(catalog: ModelCatalog) -> None:
    """Rollbacks return an alias step by step to its first target, and no further; each is recorded."""
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


def test_setting_the_current_target_is_no_change(catalog: ModelCatalog) -> None:
    """An alias that is set to its current target is rolled back to the one before."""
    catalog.set_alias("best", "a")
    catalog.set_alias("best", "b")
    catalog.set_alias("best", "b")
    assert len(catalog.alias_changes("best")) == 2
    assert catalog.rollback_alias("best").name == "a"


def test_changes_are_bounded(catalog: ModelCatalog) -> None:
    """The newest changes of an alias are stored, whatever the number of changes of others."""
    catalog.set_alias("other", "a")
    for number in range(MAX_CHANGES + 7):
        catalog.set_alias("best", "ab"[number % 2])
    changes = catalog.alias_changes("best")
    assert len(changes) == MAX_CHANGES
    assert changes[0].target == catalog.find("best").name
    assert len(catalog.alias_changes("other")) == 1


def test_the_default_is_rolled_back_to_the_shipped_model(catalogs: Catalogs, model_file: Path) -> None:
    """The alias `default` has a history before its first change: the shipped model."""
    catalog = catalogs()
    came_with = catalog.find("default")
    assert _causes(catalog.alias_changes("default")) == [(came_with.name, "set")]
    assert catalog.alias_changes("default")[0].time is None
    catalog.add_file(model_file, "mine")
    catalog.set_alias("default", "mine")
    assert catalog.find("").name == "mine"
    assert catalog.rollback_alias("default").digest == came_with.digest
    assert catalog.find("").digest == came_with.digest


def test_a_daemons_own_default_stays(catalogs: Catalogs, model_file: Path) -> None:
    """If `--model` sets the default, it cannot be rolled back, and has no other history."""
    catalogs().set_alias("default", "paper")
    catalog = catalogs(default=model_file)
    with raises(Reason.INVALID_FIELD, field="alias", match="--model"):
        catalog.rollback_alias("default")
    assert _causes(catalog.alias_changes("default")) == [(catalog.find("small").ref, "set")]


def test_tenants_have_their_own_history(catalog: ModelCatalog) -> None:
    """A tenant's alias is rolled back by its own changes; the shared alias of that name stays."""
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


def test_a_rollback_to_a_damaged_model_fails(catalog: ModelCatalog, catalogs: Catalogs) -> None:
    """A rollback to a model that cannot be read any more is an error, and changes nothing."""
    catalog.set_alias("best", (old := catalog.find("a")).ref)
    catalog.set_alias("best", "b")
    catalogs.damage(old.digest)
    again = catalogs()
    with raises(Reason.MODEL_INVALID, field="model"):
        again.rollback_alias("best")
    assert again.find("best").name == "b"


def test_a_history_survives(catalog: ModelCatalog, catalogs: Catalogs) -> None:
    """Another process that opens the store sees the same changes."""
    catalog.set_alias("best", "a")
    catalog.set_alias("best", "b")
    again = catalogs()
    assert again.alias_changes("best") == catalog.alias_changes("best")
    assert again.rollback_alias("best").name == "a"
    assert catalog.find("best").name == "a"
