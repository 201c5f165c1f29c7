"""The import rules of `pyproject.toml` fail when they are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = ["bench", "cli", "client", "mlrs_core", "proto", "server", "train", "web"]
"""The folders that hold the import packages."""

LAYERS = "Packages are layered: cli, then bench / web, then server / client / train, then core / proto"
BENCH = "The benchmark is a user of the daemon"
CORE = "The core knows no wire, threads or database"
CLIENT = "The client needs grpcio and protobuf only"
CORE_LAYERS = "The core is layered: models, networks, adapting / schedules / advice, policy, config"
TORCH = "Serving does not import torch"
ADAPTERS = "Adapters use public names of the client only"
CIRCLES = "No module or folder imports in a circle"
CLIENT_LAYERS = "The client's folders are layered"
CLIENT_MESSAGES = "Messages stop at the client's wire and transport"
SERVER_LAYERS = "The daemon's folders are layered"
SERVER_MESSAGES = "Messages stop at the daemon's services"
WEB = "The dashboard is a client of the contract like any other"
WEB_LAYERS = "The dashboard's folders are layered"

BREACHES = [
    ("mlrs_core/networks/scale.py", "grpc", CORE),
    ("mlrs_core/networks/scale.py", "mlrs_proto.v1", CORE),
    ("mlrs_core/networks/scale.py", "mlrs_server", LAYERS),
    ("mlrs_core/config/run.py", "mlrs_core.networks", CORE_LAYERS),
    ("mlrs_core/networks/scale.py", "mlrs_core.models", CORE_LAYERS),
    ("client/mlrs/__init__.py", "mlrs_server", LAYERS),
    ("client/mlrs/__init__.py", "mlrs_core", CLIENT),
    ("client/mlrs/__init__.py", "numpy", CLIENT),
    ("client/mlrs/api/run.py", "mlrs_proto.v1", CLIENT_MESSAGES),
    ("client/mlrs/torch/scheduler.py", "mlrs.api.run", ADAPTERS),
    ("client/mlrs/torch/meta_step.py", "mlrs.values.meta_types", ADAPTERS),
    ("client/mlrs/torch/search/loop.py", "mlrs.api.searching", ADAPTERS),
    ("client/mlrs/torch/search/loop.py", "mlrs.torch.scheduler", CIRCLES),
    ("client/mlrs/errors.py", "grpc", CLIENT_MESSAGES),
    ("client/mlrs/values/types.py", "google.protobuf", CLIENT_MESSAGES),
    ("client/mlrs/ledger/ledger.py", "google.protobuf", CLIENT_MESSAGES),
    ("client/mlrs/protocol/session.py", "mlrs.wire.calls", CLIENT_LAYERS),
    ("client/mlrs/protocol/routing.py", "grpc", CLIENT_MESSAGES),
    ("server/mlrs_server/__init__.py", "mlrs", LAYERS),
    ("server/mlrs_server/__init__.py", "mlrs_cli", LAYERS),
    ("server/mlrs_server/__init__.py", "torch", TORCH),
    ("server/mlrs_server/__init__.py", "mlrs_core.models.official", TORCH),
    ("server/mlrs_server/live/engine.py", "mlrs_proto.v1", SERVER_MESSAGES),
    ("server/mlrs_server/live/engine.py", "grpc", SERVER_MESSAGES),
    ("server/mlrs_server/storage/tables.py", "mlrs_server.live.arrays", SERVER_LAYERS),
    ("server/mlrs_server/new_folder/__init__.py", "mlrs_server.errors", SERVER_LAYERS),
    ("client/mlrs/new_folder/__init__.py", "mlrs.errors", CLIENT_LAYERS),
    ("server/mlrs_server/domain/observations.py", "mlrs_server.domain.ledger", CIRCLES),
    ("train/mlrs_train/__init__.py", "mlrs_server", LAYERS),
    ("train/mlrs_train/__init__.py", "mlrs_bench", LAYERS),
    ("bench/mlrs_bench/__init__.py", "mlrs_cli", LAYERS),
    ("bench/mlrs_bench/__init__.py", "mlrs_server", BENCH),
    ("web/mlrs_web/app.py", "mlrs_cli", LAYERS),
    ("web/mlrs_web/app.py", "mlrs_server", WEB),
    ("web/mlrs_web/daemons/daemon.py", "mlrs.wire.calls", WEB),
    ("web/mlrs_web/views/runs.py", "mlrs_web.routes.runs", WEB_LAYERS),
]
"""A file, an import that it must not have, and the rule that this breaks."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources and their rules."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    return copy


def lint_imports(tree: Path) -> tuple[int, str]:
    """Return the exit status of import-linter on a copy of the tree, and what it said."""
    paths = [tree / name for name in SOURCES] + [tree]
    process = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--cache-dir", tree / ".cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout + process.stderr


def test_rules_hold(tree: Path) -> None:
    """The tree as it is keeps every rule."""
    status, said = lint_imports(tree)
    assert status == 0, said
    assert " 0 broken" in said


def test_every_rule_is_broken_once() -> None:
    """No rule can be written down without a test that breaks it."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    rules = {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}
    assert rules == {rule for _, _, rule in BREACHES}


@pytest.mark.parametrize(("path", "imports", "rule"), BREACHES)
def test_forbidden_import_is_found(tree: Path, path: str, imports: str, rule: str) -> None:
    """An import that a rule forbids, added to the tree, breaks that rule."""
    source = tree / path
    before = source.read_text() if source.exists() else None
    source.parent.mkdir(exist_ok=True)
    source.write_text(f"{before or ''}\nimport {imports}\n")
    try:
        status, said = lint_imports(tree)
    finally:
        if before is None:
            shutil.rmtree(source.parent)
        else:
            source.write_text(before)
    assert status == 1, said
    assert any(line.startswith(f"{rule} BROKEN") for line in said.splitlines()), said
