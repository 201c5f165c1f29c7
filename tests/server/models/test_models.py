"""The models that runs can name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import dump_model, read_model
from mlrs_server.errors import Reason
from mlrs_server.models import files as model_files
from tests.server.models.catalogs import Catalogs
from tests.server.support import LOSSES, harness, raises, replayed
from tests.support.daemon import write_random_model


@pytest.fixture
def second_file(tmp_path: Path) -> Path:
    """Another small network."""
    return write_random_model(tmp_path / "second.safetensors", seed=1)


def test_a_file_becomes_the_default(catalogs: Catalogs, model_file: Path) -> None:
    """A model given as a file is found under its stem, its alias, its reference and as the default."""
    catalog = catalogs(default=model_file)
    found = catalog.find("")
    assert found.name == "small"
    assert found.ref == f"small@{found.digest[:12]}"
    for name in ("small", "default", found.ref, f"small@{found.digest}", f"small@{found.digest[:8]}"):
        assert catalog.find(name).digest == found.digest
    assert "default" in catalog.names.aliases_of("small", found.digest, "")
    assert found in catalog.page()
    assert found.digest == read_model(model_file)[1]
    assert found.size_bytes == model_file.stat().st_size


@pytest.mark.parametrize("name", ["nobody", "small@", "small@1234567", "small@ffffffffffff", "@", "Small"])
def test_what_is_not_there_is_not_found(catalogs: Catalogs, model_file: Path, name: str) -> None:
    """Other names, and digests that are too short or another's, are refused with what is known."""
    catalog = catalogs(default=model_file)
    if name == "small@":  # no digits at all: the name alone
        assert catalog.find(name).name == "small"
        return
    with raises(Reason.MODEL_NOT_FOUND, field="model", match="this daemon knows: .*small"):
        catalog.find(name)


def test_a_reference_must_have_enough_digits(catalogs: Catalogs, model_file: Path) -> None:
    """Seven digits of a digest are too few, eight do."""
    catalog = catalogs(default=model_file)
    digest = catalog.find("").digest
    with raises(Reason.MODEL_NOT_FOUND):
        catalog.find(f"small@{digest[:7]}")
    catalog.find(f"small@{digest[:8]}")


def test_a_name_is_replaced_only_on_demand(catalogs: Catalogs, model_file: Path, second_file: Path) -> None:
    """Another model under a taken name is refused; replaced, the old one is still there by digest."""
    catalog = catalogs()
    old = catalog.add_file(model_file, "m")
    assert catalog.add_file(model_file, "m", replace=False).digest == old.digest
    with raises(Reason.MODEL_EXISTS, field="name", match="--replace"):
        catalog.add_file(second_file, "m", replace=False)
    new = catalog.add_file(second_file, "m", replace=True)
    assert catalog.find("m").digest == new.digest != old.digest
    assert catalog.find(old.ref).digest == old.digest


def test_one_model_may_have_two_names(catalogs: Catalogs, model_file: Path) -> None:
    """The same file under two names is one model, and both names and references find it."""
    catalog = catalogs()
    first = catalog.add_file(model_file, "first")
    second = catalog.add_file(model_file, "second")
    assert first.digest == second.digest
    for name in ("first", "second"):
        assert catalog.find(name).name == name
        assert catalog.find(f"{name}@{first.digest[:12]}").ref == f"{name}@{first.digest[:12]}"


def test_a_list_leaves_out_what_cannot_be_read(
    catalogs: Catalogs, model_file: Path, second_file: Path
) -> None:
    """One damaged file does not hide the other models; asked for by name, it is named as damaged."""
    bad = catalogs(default=model_file).add_file(second_file, "second")
    catalogs.damage(bad.digest)
    catalog = catalogs(default="small")
    names = [model.name for model in catalog.page()]
    assert "small" in names
    assert "second" not in names
    with raises(Reason.MODEL_INVALID, match="second@.* cannot be read"):
        catalog.find("second")
    catalog.add_file(second_file, "second")
    assert catalogs().find("second").digest == bad.digest  # imported again, it is whole


def test_a_running_catalog_sees_an_import(catalogs: Catalogs, model_file: Path, second_file: Path) -> None:
    """What another process imports is found at once, however fast imports follow one another."""
    running = catalogs(default=model_file)
    for index in range(5):
        catalogs().add_file(second_file, f"import-{index}")
        assert running.find(f"import-{index}").digest == read_model(second_file)[1]
    assert running.find("").name == "small"


async def test_a_run_keeps_its_model(tmp_path: Path, model_file: Path, second_file: Path) -> None:
    """A run advises by the model it began with, whatever its name points at later."""
    async with harness(tmp_path / "d", None) as here:
        old = here.catalog.add_file(model_file, "m")
        opened = await here.open("a", model="m")
        lrs = (await here.follow(opened.handle, LOSSES[:5])).tolist()
    async with harness(tmp_path / "d", None) as here:
        here.catalog.add_file(second_file, "m", replace=True)
        again = await here.open("a")
        lrs += (await here.follow(again.handle, LOSSES[5:9], start=5)).tolist()
        assert lrs == replayed(old.policy, RunConfig(), LOSSES[:9]).tolist()
        assert again.view.model_ref == old.ref
        with raises(Reason.CONFIG_MISMATCH, field="model"):
            await here.open("a", model="m")


async def test_a_shipped_model_outlives_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps a shipped model that a later mlrs lacks; new runs get the one shipped instead."""
    package = tmp_path / "package" / "models"
    package.mkdir(parents=True)
    monkeypatch.setattr(model_files.resources, "files", lambda _: package.parent)
    write_random_model(package / "mlr-snet.safetensors", seed=1)
    async with harness(tmp_path / "d", None) as here:
        old = here.catalog.find("mlr-snet")
        opened = await here.open("a")
        lrs = (await here.follow(opened.handle, LOSSES[:5])).tolist()
    write_random_model(package / "mlr-snet.safetensors", seed=2)
    async with harness(tmp_path / "d", None) as here:
        again = await here.open("a")
        lrs += (await here.follow(again.handle, LOSSES[5:9], start=5)).tolist()
        assert lrs == replayed(old.policy, RunConfig(), LOSSES[:9]).tolist()
        assert here.catalog.find("mlr-snet").digest != old.digest
        assert here.catalog.find(old.ref).digest == old.digest
        assert (await here.open("b")).view.model_ref == here.catalog.find("mlr-snet").ref


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a model file was run')",)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "No such file"),
        ("empty", "cut off after 0 bytes"),
        ("truncated", "safetensors"),
        ("text", "safetensors"),
        ("pickle", "pickle"),
        ("zip", "pickle"),
        ("shapes", "shape"),
    ],
)
def test_what_is_no_model_is_refused(
    catalogs: Catalogs, tmp_path: Path, model_file: Path, kind: str, says: str
) -> None:
    """A file that is missing, cut off, a pickle or of other shapes is refused; nothing in it runs."""
    path = tmp_path / "bad.safetensors"
    data = model_file.read_bytes()
    contents = {
        "empty": b"",
        "truncated": data[:-10],
        "text": b"certainly not a model " * 20,
        "pickle": pickle.dumps(_Bomb()),
        "zip": b"PK\x03\x04" + b"\0" * 64,
        "shapes": data.replace(b'\\"hidden_size\\":8', b'\\"hidden_size\\":9'),
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    with raises(Reason.MODEL_INVALID, field="model", match=says):
        catalogs(default=path)


def test_a_stored_model_that_is_damaged_is_refused(catalogs: Catalogs, model_file: Path) -> None:
    """A flipped bit in a stored model is found out before it is served."""
    catalog = catalogs(default=model_file)
    catalogs.damage(catalog.find("").digest)
    with raises(Reason.MODEL_INVALID, match="does not match its digest; import it again"):
        catalogs().find("small")


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "../a", "a" * 65, "a b", ".a", "a@b"])
def test_malformed_names_are_refused(catalogs: Catalogs, model_file: Path, name: str) -> None:
    """A name that could leave the folder, or clash with a reference, is refused."""
    with raises(Reason.INVALID_FIELD, field="name"):
        catalogs().add_file(model_file, name)


async def test_a_store_that_cannot_be_written_is_named(
    tmp_path: Path, model_file: Path, second_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error of the store, on an import and on a run that needs its model kept."""
    package = tmp_path / "package" / "models"
    package.mkdir(parents=True)
    monkeypatch.setattr(model_files.resources, "files", lambda _: package.parent)
    write_random_model(package / "mlr-snet.safetensors", seed=1)
    async with harness(tmp_path / "d", model_file) as here:
        here.store.failing.add("change_models")
        with raises(Reason.STORE, match="the disk is full"):
            here.catalog.add_file(second_file, "second")
        with raises(Reason.STORE, match="the disk is full"):
            await here.open("a", model="mlr-snet")
        here.store.failing.clear()
        with raises(Reason.MODEL_NOT_FOUND):
            here.catalog.find("second")
        assert (await here.open("a", model="mlr-snet")).created


async def test_a_file_that_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When mlrs is upgraded under a running daemon, its runs get the models that it started with."""
    package = tmp_path / "package" / "models"
    package.mkdir(parents=True)
    monkeypatch.setattr(model_files.resources, "files", lambda _: package.parent)
    file = write_random_model(package / "mlr-snet.safetensors", seed=1)
    async with harness(tmp_path / "d", None) as here:
        digest = read_model(file)[1]
        write_random_model(file, seed=2)
        assert (await here.open("a")).view.model_ref == f"mlr-snet@{digest[:12]}"
        file.unlink()
    write_random_model(file, seed=2)
    async with harness(tmp_path / "d", None) as here:
        assert (await here.open("a")).view.model_ref == f"mlr-snet@{digest[:12]}"


def test_an_import_stores_the_file_as_it_was(catalogs: Catalogs, model_file: Path) -> None:
    """What is stored is the model's file, by its digest."""
    model = catalogs(default=model_file).find("")
    assert catalogs.store().models([model.digest]) == {model.digest: model_file.read_bytes()}
    assert model_file.read_bytes() == dump_model(model.model)


def test_a_default_file_takes_no_name_over(
    catalogs: Catalogs, tmp_path: Path, model_file: Path, second_file: Path
) -> None:
    """A file whose name is another model's, or no model's name, is refused with what to do."""
    first = catalogs(default=model_file).find("")
    model_file.write_bytes(second_file.read_bytes())
    with raises(Reason.MODEL_EXISTS, field="model", match="rename it, or import it"):
        catalogs(default=model_file)
    odd = second_file.rename(tmp_path / "Odd_Name.safetensors")
    with raises(Reason.INVALID_FIELD, field="model", match="rename it, or import it"):
        catalogs(default=odd)
    assert catalogs().find("small").digest == first.digest


def test_an_alias_is_no_name(catalogs: Catalogs, model_file: Path) -> None:
    """A model cannot be imported under an alias's name: runs would still get what the alias points at."""
    catalog = catalogs(default=model_file)
    with raises(Reason.INVALID_FIELD, field="name", match="is an alias"):
        catalog.add_file(model_file, "default")
