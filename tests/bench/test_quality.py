"""`mlrs bench quality` as its users meet it: tables, resumption, interruption, files of tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlrs_bench.cache import FILE
from mlrs_cli.root import command
from tests.bench.conftest import TASKS, write_network
from tests.bench.processes import children_of, needs_proc, wait_for_end

EXAMPLE = Path(__file__).parents[2] / "examples" / "quality_task.py"
BROKEN = """
import torch
from torch import nn

from mlrs_bench.task import Examples, Splits, Task

def load():
    labels = torch.arange(90) % 3
    inputs = 2 * torch.eye(3)[labels]
    wrong = Examples(inputs, (labels + 1) % 3)
    return Splits(train=Examples(inputs, labels), valid=wrong, test=wrong)

TASKS = [Task(name="wrong", load=load, network=lambda: nn.Linear(3, 3), horizon=20, batch_size=10)]
"""
"""A task that is judged by other labels than those it trains on: the less it learns, the better."""
COMMAND = (sys.executable, "-m", "mlrs_cli", "bench", "quality")


@pytest.fixture
def interrupted_table(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A table under way: 16 trainings of 0.2 seconds, of which at least two are done."""
    arguments = [*COMMAND, "--task-file", TASKS, "--tasks", "slow", "--methods", "constant,l4"]
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
    return CliRunner().invoke(command, ["bench", "quality", *map(str, arguments)])


def cells_in(cache: Path) -> int:
    """Return the number of whole lines in a cache."""
    return (cache / FILE).read_text(encoding="utf-8").count("\n")


def test_a_table_from_tuning_to_report(tmp_path: Path, network_file: Path) -> None:
    """A table is tuned, evaluated and written; nothing is trained twice; a new model costs its cells.

    What was saved counts as done elsewhere, too.
    """
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
    written = ("--json", tmp_path / "a.json", "--save", tmp_path / "a.gz", "--out", tmp_path / "out")
    result = quality(*asked, "--model", network_file, *written)
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

    elsewhere = ("--cache", tmp_path / "elsewhere", "--model", network_file, "--list")
    listed = quality(*asked, *elsewhere, "--known", tmp_path / "a.gz")
    assert f"{done} of {done} trainings are done" in listed.output
    assert f"{done} of {done}" not in quality(*asked, *elsewhere).output


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_was_trained(
    tmp_path: Path, interrupted_table: subprocess.Popen[str], number: signal.Signals
) -> None:
    """An interrupted command ends with status 130 and all cells so far; the same command continues there."""
    os.killpg(interrupted_table.pid, number)  # as a terminal does, and `timeout`: workers get it as well
    assert interrupted_table.wait(20) == 130
    kept = cells_in(tmp_path)
    assert 2 <= kept < 16
    rest = quality(
        *("--task-file", TASKS, "--tasks", "slow", "--methods", "constant,l4"),
        *("--seeds", 4, "--cache", tmp_path, "--json", tmp_path / "all.json"),
    )
    assert rest.exit_code == 0, rest.output
    assert f", {kept + 1} of 16:" in rest.output
    assert f", {kept} of 16:" not in rest.output
    assert len(json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))) == cells_in(tmp_path) == 16


@needs_proc
def test_kill_leaves_no_process_behind(tmp_path: Path, interrupted_table: subprocess.Popen[str]) -> None:
    """Killed, the command leaves a cache that can be read; its workers and its daemon end by themselves."""
    children = children_of(interrupted_table.pid)
    assert len(children) >= 2
    interrupted_table.kill()
    wait_for_end(children)
    listed = quality("--task-file", TASKS, "--tasks", "slow", "--cache", tmp_path, "--list", "--seeds", 4)
    assert listed.exit_code == 0, listed.output
    assert cells_in(tmp_path) >= 2


@pytest.mark.slow
def test_the_example_of_a_task_file_runs(tmp_path: Path) -> None:
    """The task file that the documentation shows trains, and is what the documentation shows."""
    result = quality(
        *("--task-file", EXAMPLE, "--tasks", "moons", "--optimizers", "sgd", "--methods", "constant,l4"),
        *("--seeds", 1, "--cache", tmp_path, "--json", tmp_path / "moons.json"),
    )
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "moons.json").read_text(encoding="utf-8"))
    assert all(cell["test_loss"] < 0.8 * cell["initial_test_loss"] for cell in cells)
    page = (EXAMPLE.parents[1] / "docs" / "guides" / "quality-tasks.md").read_text(encoding="utf-8")
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
        (["--json", "missing/all.json"], "'--json': missing: No such file or directory; give a folder"),
        (["--json", f"{__file__}/all.json"], "Not a directory; give a folder that is there"),
        (["--out", "missing/report"], "'--out': missing: No such file or directory; give a folder"),
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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("option", ["--json", "--out"])
def test_places_that_cannot_be_written_to_are_refused(tmp_path: Path, option: str) -> None:
    """Results that could not be written are refused before the training."""
    arguments = ("--task-file", TASKS, "--tasks", "tiny", "--methods", "l4", "--cache", tmp_path)
    result = quality(*arguments, option, "/proc/self/here")
    assert result.exit_code == 2
    assert f"'{option}'" in result.output
    assert not (tmp_path / FILE).exists()


def test_a_search_that_ends_at_an_edge_is_said(tmp_path: Path) -> None:
    """Where the best base LR is the last that was tried, the command says that a better one may follow."""
    file = tmp_path / "mine.py"
    file.write_text(BROKEN, encoding="utf-8")
    arguments = ("--task-file", file, "--tasks", "wrong", "--optimizers", "sgd", "--methods", "tuned-linear")
    result = quality(*arguments, "--seeds", 1, "--cache", tmp_path)
    assert result.exit_code == 0, result.output
    said = "wrong / sgd, tuned-linear: the best base LR, 1e-06, is at the edge of those tried"
    assert said in " ".join(result.output.split())


def test_errors_without_a_file_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system that is about no file is reported in its own words."""

    def fail(_folder: Path) -> None:
        raise OSError("the disk is tired")

    monkeypatch.setattr("mlrs_bench.bench.Cache", fail)
    result = quality("--cache", tmp_path, "--list")
    assert result.exit_code == 1
    assert "cannot use the disk is tired" not in result.output
    assert "Error: the disk is tired" in result.output
