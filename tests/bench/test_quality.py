"""`mlrs bench quality` as its users meet it: tables, resumption, interruption, files of tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlrs_bench.cache import FILE
from mlrs_cli.root import mlrs
from tests.bench.conftest import TASKS, write_network

EXAMPLE = Path(__file__).parents[2] / "examples" / "quality_task.py"
COMMAND = (sys.executable, "-m", "mlrs_cli", "bench", "quality")


@pytest.fixture
def interrupted_table(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A table under way: 16 trainings of 0.2 seconds, of which at least two are done."""
    arguments = [*COMMAND, "--task-file", TASKS, "--tasks", "slow", "--methods", "constant,three-step"]
    process = subprocess.Popen(
        [*map(str, arguments), "--seeds", "4", "--cache", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "2 of 16" in line:
            break
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


def quality(*arguments: object) -> Result:
    """Run the command in this process, on the tiny tasks."""
    return CliRunner().invoke(mlrs, ["bench", "quality", *map(str, arguments)])


def cells_in(cache: Path) -> int:
    """Return the number of whole lines in a cache."""
    return (cache / FILE).read_text(encoding="utf-8").count("\n")


def test_a_table_from_tuning_to_report(tmp_path: Path, network_file: Path) -> None:
    """A table is tuned, evaluated and written; nothing is trained twice; a new model costs its cells."""
    asked: tuple[object, ...] = (
        "--task-file",
        TASKS,
        "--tasks",
        "tiny",
        "--optimizers",
        "adamw",
        "--seeds",
        2,
    )
    asked += ("--methods", "tuned-cosine,mlr-snet,constant", "--cache", tmp_path, "--workers", 2)
    result = quality(
        *asked, "--model", network_file, "--json", tmp_path / "a.json", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    tuning = [cell for cell in cells if cell["purpose"] == "tune"]
    evaluated = [cell for cell in cells if cell["method"] == "tuned-cosine" and cell["purpose"] == "eval"]
    mean = {
        cell["base_lr"]: sum(each["valid_loss"] for each in tuning if each["base_lr"] == cell["base_lr"])
        for cell in tuning
    }
    assert {cell["base_lr"] for cell in evaluated} == {min(mean, key=lambda lr: mean[lr])}
    assert {cell["start"] for cell in cells if cell["method"] == "mlr-snet"} == {0.1, 1.0, 10.0}
    assert (tmp_path / "out" / "quality.md").exists()
    done = cells_in(tmp_path)
    assert done == len(cells)

    again = quality(*asked, "--model", network_file)
    assert again.exit_code == 0, again.output
    assert cells_in(tmp_path) == done

    other = write_network(tmp_path / "other.safetensors", seed=1)
    listed = quality(*asked, "--model", other, "--list")
    missing = [line.split("│")[1:-1] for line in listed.output.splitlines() if line.startswith("│")]
    assert {(row[2].strip(), int(row[5])) for row in missing} == {
        ("tuned-cosine", 0),
        ("constant", 0),
        ("mlr-snet", 6),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_trained(
    tmp_path: Path, interrupted_table: subprocess.Popen[str], number: signal.Signals
) -> None:
    """Interrupted, the command ends with status 130 and all cells so far; told again, it goes on there."""
    os.killpg(interrupted_table.pid, number)  # as a terminal does, and `timeout`: workers get it as well
    assert interrupted_table.wait(20) == 130
    kept = cells_in(tmp_path)
    assert 2 <= kept < 16
    rest = quality(
        *("--task-file", TASKS, "--tasks", "slow", "--methods", "constant,three-step"),
        *("--seeds", 4, "--cache", tmp_path, "--json", tmp_path / "all.json"),
    )
    assert rest.exit_code == 0, rest.output
    assert f", {kept + 1} of 16:" in rest.output
    assert f", {kept} of 16:" not in rest.output
    assert len(json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))) == cells_in(tmp_path) == 16


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them")
def test_kill_leaves_no_process_behind(tmp_path: Path, interrupted_table: subprocess.Popen[str]) -> None:
    """Killed, the command leaves a cache that can be read; its workers and its daemon end by themselves."""
    pid = interrupted_table.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    assert len(children) >= 2
    interrupted_table.kill()
    until = time.monotonic() + 20
    while running := [child for child in children if is_running(int(child))]:
        assert time.monotonic() < until, running
        time.sleep(0.05)
    listed = quality("--task-file", TASKS, "--tasks", "slow", "--cache", tmp_path, "--list", "--seeds", 4)
    assert listed.exit_code == 0, listed.output
    assert cells_in(tmp_path) >= 2


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody waited for has."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_example_of_a_task_file_runs(tmp_path: Path) -> None:
    """The task file that the documentation shows trains, and is what the documentation shows."""
    result = quality(
        *("--task-file", EXAMPLE, "--tasks", "moons", "--optimizers", "sgd", "--methods", "constant,l4"),
        *("--seeds", 1, "--cache", tmp_path, "--json", tmp_path / "moons.json"),
    )
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "moons.json").read_text(encoding="utf-8"))
    assert all(cell["test_loss"] < 0.8 * cell["initial_test_loss"] for cell in cells)
    page = (EXAMPLE.parents[1] / "docs" / "quality-tasks.md").read_text(encoding="utf-8")
    shown = page.split("```python\n")[1].split("```")[0]
    code = [line for line in shown.splitlines() if line]
    source = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in code if line not in source] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "nope"], "'--tasks': 'nope' is unknown; known: digits-cnn,"),
        (["--tasks", "cifar10-resnet"], "'--tasks': 'cifar10-resnet' needs --cifar10 FILE"),
        (["--tasks", ","], "'--tasks': must give names"),
        (["--optimizers", "rmsprop"], "'--optimizers': 'rmsprop' is unknown; known: sgd, adamw"),
        (["--methods", "magic"], "'--methods': 'magic' is unknown; known:"),
        (["--methods", "official"], "'--methods': 'official' needs --official FOLDER"),
        (["--model", "nope"], "'--model': 'nope' is unknown; known:"),
        (["--model", __file__ + ".safetensors"], "mlr-snet: [Errno 2] No such file"),
        (["--ablation", "mlr-snet-loss"], "'--ablation': must be NAME=FILE"),
        (["--official", str(Path(__file__).parent)], "holds no snapshots"),
        (["--seeds", "0"], "'--seeds'"),
        (["--workers", "0"], "'--workers'"),
        (["--task-file", __file__], "must define TASKS"),
        (["--cifar10", __file__, "--tasks", "cifar10-resnet"], "cannot be read as CIFAR-10"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """What is wrong is named with its option and the way out, and nothing is trained."""
    result = quality(*arguments, "--cache", tmp_path)
    assert result.exit_code in {1, 2}
    assert expected in " ".join(result.output.replace("│", "").split()), result.output
    assert not (tmp_path / FILE).exists()
