"""`mlrs runs` against a real daemon."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs.types import Signals
from mlrs_cli.root import command
from tests.support.daemon import Daemon, write_random_model
from tests.support.runs import open_run


def _run(daemon: Daemon, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(
        command, ["runs", *arguments, "--address", daemon.address]
    )


def _lines(result: Result) -> list[list[str]]:
    """Return the cells of the runs in a table that went into a pipe."""
    headings, *lines = result.stdout.splitlines()
    assert headings.split("\t")[:2] == ["run", "status"]
    return [line.split("\t") for line in lines]


def test_list_shows_every_run(daemon: Daemon) -> None:
    """`list` has a line for each run, with its status and its steps; between tabs where it is no terminal."""
    result = _run(daemon, "list", "--sort", "id")
    assert result.exit_code == 0, result.output
    assert [cells[:3] for cells in _lines(result)] == [
        ["a/one", "finished", "6 / 6"],
        ["a/two", "active", "1"],
        ["b", "diverged", "12"],
    ]
    assert not result.stderr


def test_list_draws_a_table_on_a_terminal_only(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a table with lines around its cells; a pipe gets none, and no work for one."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes standard output for a terminal
    drawn = _run(daemon, "list", "--sort", "id")
    assert all(text in drawn.output for text in ("a/one", "a/two", "│", "┃"))
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr("rich.table.Table.add_row", None)
    assert [cells[0] for cells in _lines(_run(daemon, "list", "--sort", "id"))] == ["a/one", "a/two", "b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["b", "a/two", "a/one"]),
        (("--sort", "updated"), ["b", "a/two", "a/one"]),
        (("--prefix", "a/"), ["a/two", "a/one"]),
        (("--status", "diverged"), ["b"]),
        (("--limit", "2"), ["b", "a/two"]),
        (("--limit", "1", "--sort", "id"), ["a/one"]),
        (("--limit", "3", "--sort", "id"), ["a/one", "a/two", "b"]),
        (("--limit", "0", "--sort", "id"), ["a/one", "a/two", "b"]),
        (("--prefix", "nobody"), []),
    ],
)
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_list_chooses_and_sorts(
    daemon: Daemon, arguments: tuple[str, ...], expected: list[str], form: str
) -> None:
    """Runs come by the newest activity or by id; where a limit cut them, standard error says so."""
    result = _run(daemon, "list", "--format", form, *arguments)
    assert result.exit_code == 0, result.output
    if form == "table":
        listed = [cells[0] for cells in _lines(result)]
    elif form == "json":
        listed = [run["id"] for run in json.loads(result.stdout)]
    else:
        listed = [row["id"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert listed == expected
    assert ("--limit 0 shows all" in result.stderr) == ("--limit" in arguments and len(expected) < 3)


def test_list_gives_programs_every_digit(daemon: Daemon) -> None:
    """JSON holds what `show` prints, and CSV numbers to the last bit and times with their zone."""
    runs = json.loads(_run(daemon, "list", "--format", "json").stdout)
    assert {run["id"]: run for run in runs}["a/one"] == json.loads(_run(daemon, "show", "a/one").output)
    rows = csv.DictReader(io.StringIO(_run(daemon, "list", "--format", "csv").stdout))
    row = {row["id"]: row for row in rows}["a/one"]
    with mlrs.connect(daemon.address) as advisor:
        run = advisor.get_run("a/one")
    assert (float(row["last_loss"]), float(row["last_learning_rate"])) == (
        run.last_loss,
        run.last_learning_rate,
    )
    assert (row["status"], row["next_step"], row["horizon"]) == ("finished", "6", "6")
    assert dt.datetime.fromisoformat(row["update_time"]) == run.update_time


def test_show_is_json_of_the_run(daemon: Daemon) -> None:
    """`show` prints the run as JSON, with its config and the model resolved."""
    facts = json.loads(_run(daemon, "show", "a/one").output)
    assert facts["id"] == "a/one"
    assert facts["next_step"] == 6
    assert facts["config"]["horizon"] == 6
    assert facts["config"]["model"].startswith("tiny@")


def test_export_as_csv_holds_every_step(daemon: Daemon) -> None:
    """`export` writes each step with its loss, learning rate and reason, to the last bit."""
    rows = list(csv.DictReader(io.StringIO(_run(daemon, "export", "a/one").output)))
    with mlrs.connect(daemon.address) as advisor:
        (record,) = [chunk for chunk in advisor.watch("a/one") if chunk.losses]
    assert [int(row["step"]) for row in rows] == list(range(6))
    assert [float(row["loss"]) for row in rows] == [2.0 / (1 + step) for step in range(6)]
    assert [float(row["learning_rate"]) for row in rows] == list(record.learning_rates)
    assert {row["reason"] for row in rows} == {"fresh"}


def test_export_as_json_lines_to_a_file(daemon: Daemon, tmp_path: Path) -> None:
    """`export --format jsonl --output FILE` writes JSON that any parser reads, NaN losses included."""
    file = tmp_path / "b.jsonl"
    result = _run(daemon, "export", "b", "--format", "jsonl", "--output", str(file), "--from-step", "10")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(row["step"], row["loss"], row["reason"]) for row in rows] == [
        (10, "nan", "held"),
        (11, "nan", "held"),
    ]
    assert {row["learning_rate"] for row in rows} == {0.001}


def test_export_as_json_lines_has_signals_and_validation_losses(daemon: Daemon) -> None:
    """Each line has what came with its step, and nothing for steps that came with nothing."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "signals")
        run.next_lr(0, 1.0)
        run.validate(1, 0.5)
        run.next_lr(1, 1.0, signals=Signals(update_norm2=0.25, grad_norm2=math.inf))
    result = _run(daemon, "export", "signals", "--format", "jsonl")
    assert result.exit_code == 0, result.output
    first, second = map(json.loads, result.output.splitlines())
    assert not {"signals", "validation"} & first.keys()
    assert second["signals"] == {"update_norm2": 0.25, "grad_norm2": "inf"}
    assert second["validation"] == {"step": 1, "loss": 0.5}


def test_export_as_json_lines_has_restored_states(daemon: Daemon) -> None:
    """Lines say where the advice asked to restore a saved state, and where the training did."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "rescue", rescue=True)
        for step, loss in enumerate((1.0, math.nan, math.nan, 1.0)):
            run.next_lr(step, loss, restored=step == 3)
    result = _run(daemon, "export", "rescue", "--format", "jsonl")
    assert result.exit_code == 0, result.output
    lines = list(map(json.loads, result.output.splitlines()))
    assert [line.get("restore") for line in lines] == [None, None, True, None]
    assert [line.get("restored") for line in lines] == [None, None, None, True]


def test_watch_ends_when_the_run_is_finished(daemon: Daemon) -> None:
    """`watch` on a finished run shows its last step and ends."""
    result = _run(daemon, "watch", "a/one")
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("a/one finished step 5 loss ")


def test_watch_follows_a_live_run(daemon: Daemon) -> None:
    """`watch` prints steps that come in after it began, and Ctrl-C ends it."""
    command = [sys.executable, "-m", "mlrs_cli", "runs", "watch", "live", "--address", daemon.address]
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        run = open_run(advisor, "live")
        run.next_lr(0, 1.0)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as watching:
            run.next_lr(1, 0.98765)
            run.finish()
            output, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert "0.98765" in output


@pytest.mark.parametrize("command", ["show", "watch", "export"])
def test_an_unknown_run_is_a_clear_error(daemon: Daemon, command: str) -> None:
    """Naming a run that there is none of says so, with status 1 and no traceback."""
    result = _run(daemon, command, "nobody")
    assert result.exit_code == 1
    assert "nobody" in result.output
    assert "Traceback" not in result.output
    assert "step,loss" not in result.output


def test_delete_asks_and_deletes(daemon: Daemon) -> None:
    """`delete` asks first, without `--yes`, and the run is gone; one that does not exist is named."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        open_run(advisor, "to-delete").next_lr(0, 1.5)
        declined = _run(daemon, "delete", "to-delete")  # nobody answers
        assert declined.exit_code == 1
        assert advisor.get_run("to-delete").next_step == 1
        assert _run(daemon, "delete", "to-delete", "--yes").output == "deleted to-delete\n"
        with pytest.raises(mlrs.errors.RunNotFoundError):
            advisor.get_run("to-delete")
    again = _run(daemon, "delete", "to-delete", "--yes")
    assert again.exit_code == 1
    assert "to-delete" in again.output


def test_delete_goes_on_past_a_run_that_is_not_there(daemon: Daemon) -> None:
    """Of runs that are named, those that exist are deleted, and the status says that one did not."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        for name in ("named/1", "named/2"):
            open_run(advisor, name)
        names = ("named/1", "named/nobody", "named/2")
        shown = _run(daemon, "delete", *names, "--dry-run")
        assert shown.exit_code == 1
        assert [cells[0] for cells in _lines(shown)] == ["named/1", "named/2"]
        assert "named/nobody" in shown.stderr
        assert [run.id for run in advisor.runs("named/")] == ["named/1", "named/2"]
        result = _run(daemon, "delete", *names, "--yes")
        assert result.exit_code == 1
        assert result.stdout == "deleted named/1\ndeleted named/2\n"
        assert "named/nobody" in result.stderr
        assert not list(advisor.runs("named/"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--prefix", "pick/"), {"pick/done", "pick/going", "pick/x/done"}),
        (("--prefix", "pick/x"), {"pick/x/done"}),
        (("--prefix", "pick/", "--status", "finished"), {"pick/done", "pick/x/done"}),
        (("--prefix", "pick/", "--older-than", "0s"), {"pick/done", "pick/going", "pick/x/done"}),
        (("--prefix", "pick/", "--older-than", "1h"), set()),
        (("--prefix", "nobody"), set()),
    ],
)
def test_delete_selects_runs(daemon: Daemon, arguments: tuple[str, ...], expected: set[str]) -> None:
    """Exactly the runs that meet every condition are deleted, and a dry run shows them and deletes none."""
    names = {"pick/done", "pick/going", "pick/x/done"}
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        for name in names:
            run = open_run(advisor, name)
            if name.endswith("done"):
                run.finish()
        others = {run.id for run in advisor.runs()} - names
        shown = _run(daemon, "delete", *arguments, "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert {cells[0] for cells in (_lines(shown) if shown.stdout else [])} == expected
        count = f"{len(expected)} run{'s' if len(expected) > 1 else ''}" if expected else "no run"
        assert count in shown.stderr
        assert {run.id for run in advisor.runs("pick/")} == names
        assert _run(daemon, "delete", *arguments).exit_code == (1 if expected else 0)  # nobody answers
        assert {run.id for run in advisor.runs("pick/")} == names
        result = _run(daemon, "delete", *arguments, "--yes")
        assert result.exit_code == 0, result.output
        assert set(result.stdout.splitlines()) == {f"deleted {name}" for name in expected}
        assert count in result.stderr
        assert {run.id for run in advisor.runs()} - others == names - expected
        for name in names - expected:
            advisor.delete_run(name)


def test_delete_counts_what_changed_before_the_answer(daemon: Daemon) -> None:
    """A selected run that is gone or has changed once the question is answered is counted, and no error."""
    command = [sys.executable, "-m", "mlrs_cli", "runs", "delete", "--prefix", "late/"]
    command += ["--older-than", "0s", "--status", "active", "--address", daemon.address]
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        runs = {name: open_run(advisor, f"late/{name}") for name in ("gone", "again", "used", "done", "idle")}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as deleting:
            assert deleting.stdout is not None
            asked = ""
            while not asked.endswith("[y/N]:"):
                asked += (letter := deleting.stdout.read(1))
                assert letter, asked
            assert "5 runs (5 active)" in asked
            advisor.delete_run("late/gone")
            advisor.delete_run("late/again")
            open_run(advisor, "late/again")
            runs["used"].next_lr(0, 1.0)
            runs["done"].finish()
            output, errors = deleting.communicate("y\n", timeout=60)
        assert deleting.returncode == 0, errors
        assert output.strip() == "deleted late/idle"
        assert errors.splitlines()[-1] == "deleted 1 run; 1 gone already; 3 kept, as changed"
        assert [run.id for run in advisor.runs("late/")] == ["late/again", "late/done", "late/used"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--prefix", ""),
        ("a/one", "--prefix", "a/"),
        ("--older-than", "6m"),
        ("--older-than", "7"),
        ("--older-than", "99999999w"),
    ],
)
def test_delete_refuses_what_may_mean_too_much(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    """Nothing named, an empty prefix, names beside conditions, and unclear ages are wrong usage."""
    result = _run(daemon, "delete", *arguments, "--yes")
    assert result.exit_code == 2
    with mlrs.connect(daemon.address) as advisor:
        assert advisor.get_run("a/one").next_step == 6


def test_watch_waits_for_a_run_to_appear(daemon: Daemon) -> None:
    """`watch --wait` says that it waits, and follows the run once there is one."""
    command = [sys.executable, "-m", "mlrs_cli", "runs", "watch", "--wait", "not-yet"]
    with (
        mlrs.connect(daemon.address, timeout_s=20) as advisor,
        subprocess.Popen(
            [*command, "--address", daemon.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stderr is not None
        assert watching.stderr.readline() == "waiting for run not-yet to appear (Ctrl-C to stop)\n"
        run = open_run(advisor, "not-yet")
        run.next_lr(0, 0.98765)
        run.finish()
        output, errors = watching.communicate(timeout=60)
    assert watching.returncode == 0, errors
    assert output.splitlines()[-1].startswith("not-yet finished step 0 loss 0.98765")
    assert not errors


def test_watch_waits_for_the_daemon(tmp_path: Path) -> None:
    """`watch --wait` that is started before the daemon follows the run once both are there."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    daemon = Daemon(tmp_path / "data", "--model", str(model))
    with daemon:
        daemon.stop()
        command = [sys.executable, "-m", "mlrs_cli", "runs", "watch", "--wait", "early"]
        with subprocess.Popen(
            [*command, "--address", daemon.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching:
            assert watching.stderr is not None
            assert "waiting until the daemon answers" in watching.stderr.readline()
            daemon.start()
            with mlrs.connect(daemon.address, timeout_s=20) as advisor:
                run = open_run(advisor, "early")
                run.next_lr(0, 0.98765)
                run.finish()
            output, errors = watching.communicate(timeout=60)
        assert watching.returncode == 0, errors
        assert output.splitlines()[-1].startswith("early finished step 0 loss 0.98765")


def test_an_unreachable_daemon_is_a_clear_error() -> None:
    """Without a daemon the message names the address."""
    result = CliRunner().invoke(command, ["runs", "list", "--address", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output


def test_interrupted_watch_leaves_no_traceback(daemon: Daemon) -> None:
    """Ctrl-C while following ends the command quietly."""
    command = [sys.executable, "-m", "mlrs_cli", "runs", "watch", "a/two", "--address", daemon.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as watching:
        assert watching.stdout is not None
        assert "a/two" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        rest, _ = watching.communicate(timeout=30)
    assert "Traceback" not in rest
