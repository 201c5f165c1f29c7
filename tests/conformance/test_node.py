"""JavaScript: the client of `examples/node`, with the real packages of gRPC, against real daemons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import make
from tests.conformance.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "examples" / "node"
MLRS = f"{sys.executable} -m mlrs_cli"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example, as its lock file says, in a folder of its own; return that."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing[0]} is not installed, and CI needs it")
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    folder = tmp_path_factory.mktemp("node")
    for path in (*SOURCES.glob("*.js"), *SOURCES.glob("*.json")):
        shutil.copy(path, folder)
    command = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    if installed.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"the packages of examples/node cannot be installed: {installed.stderr[-300:]}")
    assert installed.returncode == 0, installed.stderr
    return folder


def _node(example: Path, *arguments: str, proto: Path = ROOT / "proto") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLRS_PROTO": str(proto)}
    command = ["node", *arguments, "--mlrs", MLRS]
    return subprocess.run(
        command, cwd=example, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


def test_the_client_for_node_passes_every_scenario(example: Path) -> None:
    """Every scenario gets the stated responses and errors from JavaScript, too, to the bit."""
    tolerance = make.tolerance_of(make.read("unary"))
    played = _node(example, "conformance.js", "--tolerance", str(tolerance))
    assert sorted(played.stdout.splitlines()) == sorted(f"ok {name}" for name in SCENARIOS), played.stderr
    assert played.returncode == 0


def test_the_client_for_node_notices_what_differs(example: Path, tmp_path: Path) -> None:
    """Another last bit of a learning rate, another field in the metadata, or no error fails a scenario."""
    proto = tmp_path / "proto"
    shutil.copytree(ROOT / "proto" / "mlrs", proto / "mlrs")
    (proto / "conformance").mkdir()
    scenario = make.read("unary")
    rated = next(action for action in scenario["actions"] if "learningRate" in action.get("response", {}))
    rate = float.fromhex(rated["response"]["learningRate"])
    rated["response"]["learningRate"] = (rate * (1 + 2**-52)).hex()
    failed = [action for action in scenario["actions"] if "error" in action]
    failed[0]["error"]["metadata"]["mlrs-next-step"] = "7"
    del failed[1]["error"]["metadata"]["mlrs-field"]
    failed[2]["response"] = {"step": "0"}
    del failed[2]["error"]
    (proto / "conformance" / "unary.json").write_text(json.dumps(scenario), encoding="utf-8")
    played = _node(example, "conformance.js", proto=proto)
    wrong = {line.split(":")[0].split(".")[0].strip() for line in played.stdout.splitlines()[1:]}
    numbers = [scenario["actions"].index(action) for action in (rated, *failed)]
    assert played.stdout.startswith("not ok unary")
    assert wrong == {f"action {number}" for number in numbers}
    assert played.returncode == 1


def test_a_training_loop_in_javascript(example: Path) -> None:
    """A training in JavaScript has the same learning rates after a `kill -9` of the daemon and a rewind."""
    trained = _node(example, "train.js")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[1:] == [
        "step 0 again: REPLAYED, the same rate: true",
        "step 0 with another loss: FAILED_PRECONDITION, STALE_STEP",
        "after the end: RUN_FINISHED",
        "killed at step 30, the same rates: true",
        "from the checkpoint of step 20, the same rates: true",
        "RUN_STATUS_FINISHED with 60 steps",
        "a wrong field: INVALID_ARGUMENT, INVALID_FIELD, config.horizon",
    ]


def test_the_lock_file_names_no_registry() -> None:
    """The lock file has checksums and no addresses: packages come from where the user's npm says."""
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for name, package in lock["packages"].items() if name]
    assert [package for package in packages if "resolved" in package] == []
    assert all(package["integrity"].startswith("sha512-") for package in packages)
