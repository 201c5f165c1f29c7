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
SOURCES = ["bench", "cli", "client", "mlrs_core", "proto", "server", "train"]
"""The folders that hold the rooms' import packages."""

LAYERS = "Rooms are layered: cli, then bench, then server / client / train, then core / proto"
BENCH = "The benchmark is a user of the daemon"
CORE = "The core knows no wire, threads or database"
CLIENT = "The client needs grpcio and protobuf only"
CORE_LAYERS = "The core is layered: models, networks, adapting / schedules / advice, policy, config"
TORCH = "Serving does not import torch"
ADAPTERS = "Adapters use public names of the client only"
CLIENT_MESSAGES = "Proto messages stop at the client's converters and streams"
CLIENT_PROTOCOL = "The client's protocol knows neither gRPC nor messages"
SERVER_MESSAGES = "Proto messages stop at the converters and the services"

BREACHES = [
    ("mlrs_core/networks/scale.py", "grpc", CORE),
    ("mlrs_core/networks/scale.py", "mlrs_proto.v1", CORE),
    ("mlrs_core/networks/scale.py", "mlrs_server", LAYERS),
    ("mlrs_core/config/run.py", "mlrs_core.networks", CORE_LAYERS),
    ("mlrs_core/networks/scale.py", "mlrs_core.models", CORE_LAYERS),
    ("client/mlrs_client/__init__.py", "mlrs_server", LAYERS),
    ("client/mlrs_client/__init__.py", "mlrs_core", CLIENT),
    ("client/mlrs_client/__init__.py", "numpy", CLIENT),
    ("client/mlrs_client/_run.py", "mlrs_proto.v1", CLIENT_MESSAGES),
    ("client/mlrs_client/_torch_scheduler.py", "mlrs_client._run", ADAPTERS),
    ("client/mlrs_client/_torch_meta.py", "mlrs_client._meta_types", ADAPTERS),
    ("client/mlrs_client/_exceptions.py", "grpc", CLIENT_MESSAGES),
    ("client/mlrs_client/_types.py", "google.protobuf", CLIENT_MESSAGES),
    ("client/mlrs_client/_ledger.py", "google.protobuf", CLIENT_PROTOCOL),
    ("client/mlrs_client/_session.py", "mlrs_client._calls", CLIENT_PROTOCOL),
    ("client/mlrs_client/_routing.py", "grpc", CLIENT_PROTOCOL),
    ("server/mlrs_server/__init__.py", "mlrs_client", LAYERS),
    ("server/mlrs_server/__init__.py", "mlrs_cli", LAYERS),
    ("server/mlrs_server/__init__.py", "torch", TORCH),
    ("server/mlrs_server/__init__.py", "mlrs_core.models.official", TORCH),
    ("server/mlrs_server/engine.py", "mlrs_proto.v1", SERVER_MESSAGES),
    ("server/mlrs_server/engine.py", "grpc", SERVER_MESSAGES),
    ("train/mlrs_train/__init__.py", "mlrs_server", LAYERS),
    ("train/mlrs_train/__init__.py", "mlrs_bench", LAYERS),
    ("bench/mlrs_bench/__init__.py", "mlrs_cli", LAYERS),
    ("bench/mlrs_bench/__init__.py", "mlrs_server", BENCH),
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
    rooms = [tree / name for name in SOURCES] + [tree]
    process = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--cache-dir", tree / ".cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, rooms)), "COLUMNS": "200", "NO_COLOR": "1"},
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
    before = source.read_text()
    source.write_text(f"{before}\nimport {imports}\n")
    try:
        status, said = lint_imports(tree)
    finally:
        source.write_text(before)
    assert status == 1, said
    assert any(line.startswith(f"{rule} BROKEN") for line in said.splitlines()), said
