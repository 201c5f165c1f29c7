"""`mlrs bench memory` as its users meet it: sequences, resumption, the report, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlrs_bench.cache import read_cells
from mlrs_bench.memory.bench import read_lineages
from mlrs_cli.root import command
from tests.bench.conftest import TASKS

LONG = ("--task-file", TASKS, "--tasks", "long", "--optimizers", "adamw")


def bench(name: str, *arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(command, ["bench", name, *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.timeout(600)  # eighteen trainings, and three daemons
def test_runs_of_a_task_are_remembered_through_daemon_and_adapter(tmp_path: Path) -> None:
    """The first run searches, later ones are decided on; what was made is not made again, and reported."""
    file = tmp_path / "lineages.jsonl.gz"
    asked = (*LONG, "--scenarios", "full", "--cache", tmp_path, "--lineages", file)
    result = bench("memory", *asked, "--repetitions", 1)
    assert result.exit_code == 0, result.output
    ((digest, lineage),) = read_lineages(file).items()
    first, second, *others = lineage.ended
    assert first.why == "the first run of its task with this kind of optimizer"
    assert second.why.endswith("the best known after 1 run")
    assert len(others) == 7
    assert all("a learning rate of" in one.why or "far from" in one.why for one in others)
    assert [one.cell.seed for one in lineage.ended if one.compared] == [100] * 4

    cells, out = tmp_path / "cells.gz", tmp_path / "out"
    tuned = bench(
        "quality", *LONG, "--methods", "constant,cosine", "--seeds", 2, "--cache", tmp_path, "--save", cells
    )
    assert tuned.exit_code == 0, tuned.output
    assert read_cells(cells)
    result = bench("memory", *asked, "--repetitions", 2, "--workers", 2, "--cells", cells, "--out", out)
    assert result.exit_code == 0, result.output
    both = read_lineages(file)
    assert both[digest] == lineage
    assert len(both) == 2
    assert "full run 6" in (out / "memory.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scenarios", "bold"), "scenarios"),
        (("--optimizers", "lion"), "optimizers"),
        (("--tasks", "huge"), "tasks"),
        (("--out", "here"), "--cells"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """An unknown name, and a report without what to compare with, are refused before anything is trained."""
    result = bench("memory", "--lineages", tmp_path / "a.gz", "--cache", tmp_path, *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file that the command did not write is not overwritten."""
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    result = bench("memory", *LONG, "--cache", tmp_path, "--lineages", file)
    assert result.exit_code == 1
    assert "is no file of sequences" in result.output
    assert file.read_text() == "mine"
