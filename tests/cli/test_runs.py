"""`mlrs runs` against a real daemon."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlrs_client
from mlrs_cli.root import mlrs
from tests.support.daemon import Daemon
from tests.support.runs import open_run


def _run(daemon: Daemon, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(mlrs, ["runs", *arguments, "--address", daemon.address])


def test_list_shows_every_run(daemon: Daemon) -> None:
    """`list` has a line for each run, with its status and its steps."""
    result = _run(daemon, "list")
    assert result.exit_code == 0, result.output
    lines = {cells[1]: cells for line in result.output.splitlines() if len(cells := line.split()) > 5}
    assert [lines[name][3] for name in ("a/one", "a/two", "b")] == ["finished", "active", "diverged"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--prefix", "a/"), {"a/one", "a/two"}),
        (("--status", "diverged"), {"b"}),
        (("--limit", "1"), {"a/one"}),
    ],
)
def test_list_chooses(daemon: Daemon, arguments: tuple[str, ...], expected: set[str]) -> None:
    """`--prefix`, `--status` and `--limit` choose runs."""
    output = _run(daemon, "list", *arguments).output
    assert {name for name in ("a/one", "a/two", " b ") if name in output} == {
        name if name != "b" else " b " for name in expected
    }


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
    with mlrs_client.connect(daemon.address) as advisor:
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


def test_watch_ends_when_the_run_is_finished(daemon: Daemon) -> None:
    """`watch` on a finished run shows its last step and ends."""
    result = _run(daemon, "watch", "a/one")
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("a/one finished step 5 loss ")


def test_watch_follows_a_live_run(daemon: Daemon) -> None:
    """`watch` prints steps that come in after it began, and Ctrl-C ends it."""
    command = [sys.executable, "-m", "mlrs_cli", "runs", "watch", "live", "--address", daemon.address]
    with mlrs_client.connect(daemon.address, timeout_s=20) as advisor:
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
    """`delete` asks first, unless told `--yes`, and the run is gone; one that is not there is named."""
    with mlrs_client.connect(daemon.address, timeout_s=20) as advisor:
        open_run(advisor, "to-delete").next_lr(0, 1.5)
        declined = _run(daemon, "delete", "to-delete")  # nobody answers
        assert declined.exit_code == 1
        assert advisor.get_run("to-delete").next_step == 1
        assert _run(daemon, "delete", "to-delete", "--yes").output == "deleted to-delete\n"
        with pytest.raises(mlrs_client.RunNotFoundError):
            advisor.get_run("to-delete")
    again = _run(daemon, "delete", "to-delete", "--yes")
    assert again.exit_code == 1
    assert "to-delete" in again.output


def test_an_unreachable_daemon_is_a_clear_error() -> None:
    """Without a daemon the message names the address."""
    result = CliRunner().invoke(mlrs, ["runs", "list", "--address", "127.0.0.1:1"])
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
