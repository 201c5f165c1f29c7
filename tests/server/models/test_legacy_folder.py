"""Models of a data folder from before the store kept them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_proto import v1 as pb
from mlrs_server.errors import Reason
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.models.legacy_folder import bring_models_over
from mlrs_server.storage import open_store
from mlrs_server.storage.tables import model_names, models
from tests.server.models.catalogs import Catalogs
from tests.server.support import LOSSES, advised, create, harness, raises, replayed, service
from tests.support.daemon import write_random_model


def _old_folder(data_dir: Path, files: dict[str, Path], **columns: Any) -> dict[str, str]:
    """Write models as mlrs did before the store kept them; return their digests by name."""
    folder = data_dir / "models"
    folder.mkdir(parents=True, exist_ok=True)
    digests = {name: read_model(file)[1] for name, file in files.items()}
    for name, file in files.items():
        (folder / f"{digests[name]}.safetensors").write_bytes(file.read_bytes())
    index: dict[str, Any] = {
        "names": digests,
        "aliases": {},
        "origins": {digest: name for name, digest in digests.items()},
        **columns,
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return digests


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files of the models `a`, `b` and `c`."""
    return {
        name: write_random_model(tmp_path / f"{name}.safetensors", seed=seed)
        for seed, name in enumerate("abc")
    }


async def test_a_daemon_takes_a_folder_over(tmp_path: Path, files: dict[str, Path]) -> None:
    """After an upgrade, runs go on with their models, and names, aliases and their history are there."""
    async with harness(tmp_path / "d", files["a"]) as here:
        lrs = (await here.follow((await here.open("run")).handle, LOSSES[:5])).tolist()
    store = open_store(tmp_path / "d/mlrs.sqlite3")
    with store.transaction() as connection:  # as if no store had ever kept a model
        for table in (models, model_names):
            connection.execute(table.delete())
    store.close()
    changes = {"best": [{"target": name, "cause": "set", "time": 1.5} for name in "ab"]}
    digests = _old_folder(tmp_path / "d", files, aliases={"best": "b", "old": "a"}, changes=changes)
    for _ in range(2):  # the second time, there is nothing to do
        async with service(tmp_path / "d", files["c"]) as (stub, _):
            await create(stub, "run")
            losses = LOSSES[len(lrs) : len(lrs) + 5]
            lrs += await advised(stub, "run", losses, start=len(lrs))
            for alias, name in (("best", "b"), ("old", "a"), ("c", "c")):
                model = (await stub.GetModel(pb.GetModelRequest(model=alias))).model
                assert (model.name, model.digest) == (name, digests[name])
            told = (await stub.ListAliasChanges(pb.ListAliasChangesRequest(alias="best"))).changes
            assert [change.model for change in told] == ["b", "a"]
    policy = read_model(files["a"])[0].policy()
    assert lrs == replayed(policy, RunConfig(), LOSSES[: len(lrs)]).tolist()
    assert not (tmp_path / "d/models/index.json").exists()


def test_what_the_store_has_stays(catalogs: Catalogs, tmp_path: Path, files: dict[str, Path]) -> None:
    """Folders of several replicas come together: the first name wins, and all models are found by digest."""
    first = _old_folder(tmp_path / "one", {"m": files["a"]}, aliases={"best": "m"})
    second = _old_folder(tmp_path / "two", {"m": files["b"], "n": files["c"]}, aliases={"best": "n"})
    for folder in ("one", "two"):
        bring_models_over(tmp_path / folder, catalogs.store())
    catalog = catalogs()
    assert catalog.find("m").digest == catalog.find("best").digest == first["m"]
    assert catalog.find(f"m@{second['m']}").digest == second["m"]
    assert catalog.find("n").digest == second["n"]


def test_tenants_keep_their_own(catalogs: Catalogs, tmp_path: Path, files: dict[str, Path]) -> None:
    """Names, aliases and versions of a tenant stay its own."""
    digest = read_model(files["a"])[1]
    version = read_model(files["b"])[1]
    _old_folder(
        tmp_path,
        files,
        names={"acme!mine": digest},
        origins={f"acme!{digest}": "mine", f"acme!{version}": "mine"},
        aliases={"acme!best": f"mine@{version}"},
    )
    bring_models_over(tmp_path, catalogs.store())
    catalog = catalogs()
    assert catalog.find("mine", "acme").digest == digest
    assert catalog.find("best", "acme").digest == version
    for reference in ("mine", "best", f"mine@{version}"):
        with raises(Reason.MODEL_NOT_FOUND):
            catalog.find(reference)


def test_a_damaged_file_is_left_out(catalogs: Catalogs, tmp_path: Path, files: dict[str, Path]) -> None:
    """A model whose file is damaged or gone is not found; the others are."""
    digests = _old_folder(tmp_path, files)
    (tmp_path / "models" / f"{digests['a']}.safetensors").write_bytes(b"rubbish")
    (tmp_path / "models" / f"{digests['b']}.safetensors").unlink()
    bring_models_over(tmp_path, catalogs.store())
    catalog = catalogs()
    assert catalog.find("c").digest == digests["c"]
    for name in "ab":
        with raises(Reason.MODEL_NOT_FOUND):
            catalog.find(name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"names": [], "aliases": {}, "origins": {}}', "\xff",
             '{"names": {}, "aliases": {"x": "y"}, "origins": {}, "changes": {"x": [{"by": 1}]}}']
)  # fmt: skip
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    """An index that is no index is an error that names its folder, and nothing is changed."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "index.json").write_text(text, encoding="latin-1")
    store = open_store(tmp_path / "mlrs.sqlite3")
    with raises(Reason.MODEL_INVALID, match="models cannot be taken into the store.*restore the folder"):
        bring_models_over(tmp_path, store)
    assert (tmp_path / "models" / "index.json").exists()
    assert [model.name for model in ModelCatalog(asking(store)).page()] == ["mlr-snet", "paper"]
    store.close()
