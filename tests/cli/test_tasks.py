"""`mlrs tasks` against a real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs.types import TaskMemory
from mlrs_cli.root import command
from tests.support.daemon import Daemon, write_random_model

TASK, STEPS = "cifar/resnet", 40


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a task of two runs that ended and one that is under way, and another of one run."""
    folder = tmp_path_factory.mktemp("daemon")
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model)) as running:
        with mlrs.connect(running.address, timeout_s=20) as advisor:
            for run_id, accuracy in (("one", 0.75), ("two", 0.5), ("live", None)):
                run = advisor.run(TASK, id=run_id, horizon=STEPS, optimizer="adam", batch_size=8)
                for step in range(STEPS if accuracy else 1):
                    run.next_lr(step, 2.0 / (1 + step))
                if accuracy:
                    run.finish(metric=accuracy, higher_is_better=True)
            other = advisor.run("other", id="three", horizon=STEPS)
            other.next_lr(0, 1.0)
            other.finish()
        yield running


def _run(daemon: Daemon, *arguments: str, answer: str = "") -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(command, ["tasks", *arguments, "--address", daemon.address], input=answer)


def _memory(daemon: Daemon, task: str = TASK) -> TaskMemory:
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        return advisor.task(task)


def test_list_shows_every_task(daemon: Daemon) -> None:
    """`list` has a line for each task, with the number of its runs; JSON has the same for programs."""
    shown = _run(daemon, "list")
    assert shown.exit_code == 0, shown.output
    assert all(name in shown.output for name in (TASK, "other"))
    facts = json.loads(_run(daemon, "list", "--json").output)
    known = {task["name"]: task["runs"] for task in facts}
    assert known[TASK] == _memory(daemon).task.runs


def test_show_has_the_runs_and_the_next_one(daemon: Daemon) -> None:
    """`show` lists the runs, the newest first, and says what the next one gets and why."""
    shown = _run(daemon, "show", TASK)
    assert shown.exit_code == 0, shown.output
    places = [shown.output.index(f" {run_id} ") for run_id in ("two", "one")]
    assert places == sorted(places)
    assert all(
        text in shown.output for text in ("live", "under way", "reached its horizon", "0.75", "metric")
    )
    recalled = _memory(daemon).next
    assert recalled is not None
    assert f"next run like the newest one: {recalled.why}" in shown.output


def test_show_as_json(daemon: Daemon) -> None:
    """JSON has every digit of what the client reads."""
    facts, memory = json.loads(_run(daemon, "show", TASK, "--json").output), _memory(daemon)
    assert facts["task"]["name"] == TASK
    assert [run["id"] for run in facts["runs"]] == [run.id for run in memory.runs]
    by_id = {run["id"]: run for run in facts["runs"]}
    assert (by_id["one"]["metric"], by_id["one"]["batch_size"]) == (0.75, 8)
    assert memory.next is not None
    assert facts["next"]["why"] == memory.next.why
    assert len(facts["curve"]) == len(memory.curve)


def test_show_draws_a_figure(daemon: Daemon, tmp_path: Path) -> None:
    """`--plot` writes a figure; a file that cannot be written is an error without a traceback."""
    shown = _run(daemon, "show", TASK, "--plot", str(tmp_path / "task.png"))
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "task.png").read_bytes().startswith(b"\x89PNG")
    wrong = _run(daemon, "show", TASK, "--plot", str(tmp_path / "missing" / "task.png"))
    assert wrong.exit_code == 1
    assert "--plot" in wrong.output


def test_a_figure_beside_json_leaves_the_json_alone(daemon: Daemon, tmp_path: Path) -> None:
    """With `--json`, nothing but JSON goes to the standard output, also where a figure is drawn."""
    shown = _run(daemon, "show", TASK, "--json", "--plot", str(tmp_path / "task.png"))
    assert json.loads(shown.stdout)["task"]["name"] == TASK


@pytest.mark.parametrize("arguments", [("show",), ("forget", "--yes")], ids=str)
def test_an_unknown_task_is_a_clear_error(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    """Naming a task of which nothing is remembered says so, with status 1 and no traceback."""
    shown = _run(daemon, *arguments, "nothing")
    assert shown.exit_code == 1
    assert "nothing" in shown.output
    assert "Traceback" not in shown.output


def test_forget_asks_first(daemon: Daemon) -> None:
    """`forget` asks unless told not to, and leaves the runs; the next run begins as the first one did."""
    refused = _run(daemon, "forget", "other", answer="n\n")
    assert refused.exit_code == 1
    assert "Forget what is remembered of other (1 run) for good?" in refused.output
    assert _memory(daemon, "other").task.runs == 1
    forgot = _run(daemon, "forget", "other", answer="y\n")
    assert forgot.exit_code == 0, forgot.output
    assert "forgot 1 run of other" in forgot.output
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        assert "other" not in [task.name for task in advisor.tasks()]
        assert advisor.get_run("three").status == "finished"
