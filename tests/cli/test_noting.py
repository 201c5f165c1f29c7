"""Tags, notes and filters in `mlrs runs`, and text that would control a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs_cli.root import command
from mlrs_cli.text import shown
from mlrs_proto import v1 as pb
from tests.client.fake_daemon import FakeDaemon, Record
from tests.support.daemon import Daemon

HOSTILE = "\x1b[2J[red]x[/red]\x9b31m\u202e\r\n\x07<b>"
"""Text that clears the screen, is markup of two kinds, reverses what follows, and begins a line."""
WRITTEN = r"\x1b[2J[red]x[/red]\x9b31m\u202e\r\n\x07<b>"
"""What is shown of it."""


def runs(address: str, *arguments: str) -> Result:
    """Run a command of `mlrs runs`."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(command, ["runs", *arguments, "--address", address])


def ids(address: str, *arguments: str) -> list[str]:
    """Return the ids that `list` prints."""
    listed = runs(address, "list", *arguments)
    assert listed.exit_code == 0, listed.output
    return [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]]


def noted(daemon: Daemon, run_id: str, note: str = "", **tags: str) -> None:
    """Give a run a note and tags, and no others."""
    with mlrs.connect(daemon.address, timeout_s=20) as advisor:
        others = advisor.get_run(run_id).tags.keys() - tags.keys()
        advisor.update_run(run_id, set_tags=tags, remove_tags=others, note=note)


def test_tags_are_set_and_removed(daemon: Daemon) -> None:
    """`tag` shows the tags that the run has then; `show` and the formats of `list` have them, too."""
    noted(daemon, "b")
    result = runs(daemon.address, "tag", "b", "team=vision", "a.b/c=x=y z", "bare")
    assert (result.exit_code, result.stdout) == (0, "a.b/c=x=y z\nbare=\nteam=vision\n")
    result = runs(daemon.address, "tag", "b", "team=[red]", "--remove", "bare", "--remove", "none")
    assert (result.exit_code, result.stdout) == (0, "a.b/c=x=y z\nteam=[red]\n")
    tags = {"a.b/c": "x=y z", "team": "[red]"}
    assert json.loads(runs(daemon.address, "show", "b").stdout)["tags"] == tags
    (found,) = json.loads(runs(daemon.address, "list", "--prefix", "b", "--format", "json").stdout)
    assert found["tags"] == tags
    (row,) = csv.DictReader(
        io.StringIO(runs(daemon.address, "list", "--prefix", "b", "--format", "csv").stdout)
    )
    assert json.loads(row["tags"]) == tags
    lines = runs(daemon.address, "list", "--prefix", "b").stdout.splitlines()
    assert [line.split("\t")[-1] for line in lines] == ["tags", "a.b/c=x=y z team=[red]"]


def test_a_note_is_put_on_a_run(daemon: Daemon) -> None:
    """`note` replaces the note, and removes it where the text is empty; `show` has it as it is."""
    text = "the baseline,\nwith [bold]old[/bold] data"
    result = runs(daemon.address, "note", "b", text)
    assert (result.exit_code, result.stdout) == (0, "b: the baseline,\\nwith [bold]old[/bold] data\n")
    assert json.loads(runs(daemon.address, "show", "b").stdout)["note"] == text
    assert runs(daemon.address, "note", "b", "").stdout == "b has no note\n"
    assert json.loads(runs(daemon.address, "show", "b").stdout)["note"] == ""


def test_tags_have_a_column_where_a_run_has_some(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal, the table has a column of tags only if a run in it has tags."""
    noted(daemon, "a/one")
    noted(daemon, "a/two")
    noted(daemon, "b", team="vision")
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes standard output for a terminal
    for prefix, has_tags in (("a/", False), ("", True)):
        table = runs(daemon.address, "list", "--prefix", prefix).output
        assert "┃" in table
        assert ("team=vision" in table, "tags" in table) == (has_tags, has_tags)


def test_a_run_that_is_watched_shows_its_tags_and_note(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of a run in a terminal has its tags, and its note below."""
    noted(daemon, "a/one", "two\nlines of [red]", team="[red]")
    monkeypatch.setenv("FORCE_COLOR", "1")
    watched = runs(daemon.address, "watch", "a/one").output
    assert "team=[red]" in watched
    assert "lines of [red]" in watched


def test_lists_are_filtered(daemon: Daemon) -> None:
    """Every filter of `list` is the daemon's, and they work together."""
    noted(daemon, "a/one")
    noted(daemon, "a/two", team="language")
    noted(daemon, "b", team="vision", bare="")
    assert ids(daemon.address, "--tag", "team", "--order", "id") == ["a/two", "b"]
    assert ids(daemon.address, "--tag", "team=vision") == ["b"]
    assert ids(daemon.address, "--tag", "team", "--tag", "bare") == ["b"]
    assert ids(daemon.address, "--contains", "/", "--order", "id") == ["a/one", "a/two"]
    assert ids(daemon.address, "--contains", "%") == []
    assert ids(daemon.address, "--model", "tiny", "--status", "active") == ["a/two"]
    assert ids(daemon.address, "--model", "other") == []
    assert ids(daemon.address, "--task", "task", "--prefix", "b") == ["b"]
    assert ids(daemon.address, "--order", "created") == ["b", "a/two", "a/one"]
    assert ids(daemon.address, "--sort", "id") == ["a/one", "a/two", "b"]
    assert ids(daemon.address) == ids(daemon.address, "--sort", "updated")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tag", "b"], "name tags to set, or to --remove"),
        (["tag", "b", "=x"], "names no tag"),
        (["tag", "b", "not a name=x"], "must name tags"),
        (["tag", "nobody", "x=1"], "there is no run 'nobody'"),
        (["note", "nobody", "x"], "there is no run 'nobody'"),
        (["note", "b", "\x1b[2J"], "without control characters"),
        (["list", "--tag", "=x"], "names no tag"),
        (["list", "--model", "m@1"], "8 to 64"),
        (["list", "--order", "loss"], "'loss'"),
    ],
)
def test_what_is_wrong_is_said(daemon: Daemon, arguments: list[str], says: str) -> None:
    """A command that cannot be meant ends with an error, and without control characters."""
    result = runs(daemon.address, *arguments)
    assert result.exit_code
    assert says in result.output
    assert "\x1b" not in result.output


class HostileRecord(Record):
    """A run of a daemon that no checks protect."""

    def message(self) -> pb.Run:
        """Return it with text that would control a terminal."""
        run = super().message()
        run.run_id, run.note = HOSTILE, HOSTILE
        run.tags[HOSTILE] = HOSTILE
        run.config.model = f"{HOSTILE}@0"
        return run


class HostileDaemon(FakeDaemon):
    """A daemon that no checks protect; it ends the record of a run that is followed."""

    def WatchRun(  # noqa: N802  # as the contract calls it
        self, request: pb.WatchRunRequest, context: grpc.ServicerContext
    ) -> Any:
        """Stream a run's record."""
        request.follow = False
        yield from super().WatchRun(request, context)


@pytest.fixture(scope="module")
def hostile() -> Iterator[FakeDaemon]:
    """A daemon whose one run has such an id, model, tag and note."""
    served = HostileDaemon()
    record = served.runs["x"] = HostileRecord("x", pb.RunConfig())
    record.losses, record.finished = [1.0], True
    yield served
    served.stop()


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--format", "csv"],
        ["list", "--format", "json"],
        ["show", "x"],
        ["watch", "x"],
        ["delete", "x", "--dry-run"],
        ["delete", "--status", "finished", "--yes"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_text_controls_no_terminal(
    hostile: FakeDaemon, monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, terminal: bool
) -> None:
    """Ids, models, tags and notes of whatever source are shown as text, never as control or markup."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    output = runs(hostile.target, *arguments).output
    for forbidden in ("\x1b[2J", "\x9b", "\u202e", "\x07", "\x1b[31m"):
        assert forbidden not in output
    assert "[red]x[/red]" in output
    assert any(written in output for written in (r"\x1b[2J", r"\u001b[2J"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(HOSTILE, WRITTEN), ("plain é", "plain é"), ("a\nb\t\\", "a\\nb\\t\\"), ("", "")],
)
def test_what_is_shown_of_text(text: str, expected: str) -> None:
    """Printable characters stay; others are written out, but for those that are to be kept."""
    assert shown(text) == expected
    assert shown(f"{text}\n", keep="\n").endswith("\n")
