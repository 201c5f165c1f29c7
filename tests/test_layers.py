"""The import rules of `pyproject.toml` fail when they are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = ["bench", "cli", "client", "mlrs_core", "proto", "server", "train"]
"""The folders that hold the rooms' import packages."""

LAYERS = "Rooms are layered"
BENCH = "The benchmark is a user of the daemon"
CORE = "The core knows no wire"
CLIENT = "The client needs grpcio and protobuf only"
TORCH = "Serving does not import torch"
DOOR = "Proto messages stop at"


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


@pytest.mark.parametrize(
    ("path", "imports", "rule"),
    [
        ("mlrs_core/scale.py", "grpc", CORE),
        ("mlrs_core/scale.py", "mlrs_proto.v1", CORE),
        ("mlrs_core/scale.py", "mlrs_server", LAYERS),
        ("client/mlrs_client/__init__.py", "mlrs_server", LAYERS),
        ("client/mlrs_client/__init__.py", "mlrs_core", CLIENT),
        ("client/mlrs_client/__init__.py", "numpy", CLIENT),
        ("server/mlrs_server/__init__.py", "mlrs_client", LAYERS),
        ("server/mlrs_server/__init__.py", "mlrs_cli", LAYERS),
        ("server/mlrs_server/__init__.py", "torch", TORCH),
        ("server/mlrs_server/__init__.py", "mlrs_core.official", TORCH),
        ("server/mlrs_server/engine.py", "mlrs_proto.v1", DOOR),
        ("server/mlrs_server/engine.py", "grpc", DOOR),
        ("train/mlrs_train/__init__.py", "mlrs_server", LAYERS),
        ("train/mlrs_train/__init__.py", "mlrs_bench", LAYERS),
        ("bench/mlrs_bench/__init__.py", "mlrs_cli", LAYERS),
        ("bench/mlrs_bench/__init__.py", "mlrs_server", BENCH),
    ],
)
def test_forbidden_import_is_found(tree: Path, path: str, imports: str, rule: str) -> None:
    """An import that a rule forbids, added to the tree, breaks that rule."""
    source = tree / path
    before = source.read_text()
    source.write_text(f"{before}\nimport {imports}\n")
    try:
        status, said = lint_imports(tree)
    finally:
        source.write_text(before)
    broken = [line for line in said.splitlines() if " BROKEN" in line]
    assert status == 1, said
    assert any(line.startswith(rule) for line in broken), said
