"""The checks of the contract fail when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GENERATOR = REPOSITORY / ".venv-proto" / "bin"
BUF = Path(sys.executable).with_name("buf")

needs_generator = pytest.mark.skipif(
    not (GENERATOR / "protoc-gen-mypy").exists(),
    reason="`make lint` sets up the generator's environment, .venv-proto",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the folder of the contract."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(REPOSITORY / "proto", tmp_path / "proto", ignore=ignored))


def run(*command: str | Path) -> tuple[int, str]:
    """Return the exit status of a command, and what it said."""
    path = os.pathsep.join([str(GENERATOR), os.environ["PATH"]])
    process = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    return process.returncode, process.stdout + process.stderr


needs_buf = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed beside this Python")


def changed(folder: Path, name: str, before: str, after: str) -> None:
    """Change the contract in a copy."""
    contract = folder / "mlrs" / "v1" / f"{name}.proto"
    text = contract.read_text()
    assert before in text
    contract.write_text(text.replace(before, after))


@needs_generator
def test_tampered_stub_is_found(folder: Path) -> None:
    """A stub that the generator would not write fails the check, by name; an untouched folder passes."""
    check = (GENERATOR / "python", folder / "generate.py", "--check")
    assert run(*check)[0] == 0
    stub = folder / "mlrs_proto" / "v1" / "run_pb2.pyi"
    stub.write_text(stub.read_text() + "\n# by hand\n")
    status, said = run(*check)
    assert status == 1
    assert "run_pb2.pyi" in said
    assert "make proto" in said


@needs_generator
def test_forgotten_regeneration_is_found(folder: Path) -> None:
    """A field added to the contract fails the check until the stubs are generated again."""
    changed(
        folder, "run", "message GetRunRequest {\n", "message GetRunRequest {\n  // New.\n  bool brief = 2;\n"
    )
    assert run(GENERATOR / "python", folder / "generate.py", "--check")[0] == 1
    assert run(GENERATOR / "python", folder / "generate.py")[0] == 0
    assert run(GENERATOR / "python", folder / "generate.py", "--check")[0] == 0


@pytest.mark.parametrize(
    ("name", "before", "after", "rule"),
    [
        ("advice", "repeated double losses = 3;", "repeated float losses = 3;", "FIELD_SAME_TYPE"),
        ("advice", "  // Steps.\n  repeated uint64 steps = 2;\n", "", "FIELD_NO_DELETE"),
        ("advice", "uint64 step = 2;", "uint64 number = 2;", "FIELD_SAME_NAME"),
        ("run", "optional uint64 durable_step = 5;", "uint64 durable_step = 5;", "FIELD_SAME_CARDINALITY"),
        ("errors", "ERROR_REASON_STORE = 13", "ERROR_REASON_STORE = 99", "ENUM_VALUE_NO_DELETE"),
        ("advisor_service", "rpc GetRun(", "rpc ReadRun(", "RPC_NO_DELETE"),
    ],
)
@needs_buf
def test_a_breaking_change_is_found(folder: Path, name: str, before: str, after: str, rule: str) -> None:
    """What would break those who use the contract fails the check against the committed baseline."""
    check = (BUF, "breaking", folder, "--error-format", "json", "--against", folder / "baseline.binpb")
    assert run(*check) == (0, "")
    changed(folder, name, before, after)
    status, said = run(*check)
    assert status != 0
    assert rule in said


@needs_buf
def test_a_baseline_that_lacks_an_addition_is_found(folder: Path) -> None:
    """An addition passes the check, and has to be in the baseline, so that later it cannot go."""
    changed(
        folder, "run", "message GetRunRequest {\n", "message GetRunRequest {\n  // New.\n  bool brief = 2;\n"
    )
    baseline = folder / "baseline.binpb"
    assert run(BUF, "breaking", folder, "--against", baseline)[0] == 0
    assert run(BUF, "breaking", baseline, "--against", folder)[0] != 0
    assert run(BUF, "build", folder, "--exclude-source-info", "--output", baseline)[0] == 0
    assert run(BUF, "breaking", baseline, "--against", folder)[0] == 0


@pytest.mark.parametrize(
    ("name", "before", "after", "rule"),
    [
        (
            "config",
            "  // A model's name, alias, or",
            "  string a = 90;\n  // A model's name, alias, or",
            "COMMENT_FIELD",
        ),
        (
            "advisor_service",
            "rpc GetRun(GetRunRequest)",
            "rpc GetRun(FinishRunRequest)",
            "RPC_REQUEST_STANDARD_NAME",
        ),
        ("config", "OPTIMIZER_SGD = 1", "SGD = 1", "ENUM_VALUE_PREFIX"),
    ],
    ids=["comment", "request", "prefix"],
)
@needs_buf
def test_contract_lint_finds(folder: Path, name: str, before: str, after: str, rule: str) -> None:
    """A field without a comment, a shared request and a value without prefix fail buf's lint."""
    assert run(BUF, "lint", folder)[0] == 0
    changed(folder, name, before, after)
    status, said = run(BUF, "lint", "--error-format", "json", folder)
    assert status != 0
    assert rule in said
