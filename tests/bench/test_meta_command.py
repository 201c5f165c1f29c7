"""`mlrs bench meta` as its users meet it: from trainings to the report, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlrs_bench.cache import read_cells
from mlrs_cli.root import command
from tests.bench.conftest import TASKS


def bench(*arguments: object) -> Result:
    """Run a command of the benchmark in this process."""
    return CliRunner().invoke(command, ["bench", *map(str, arguments)])


def trained(folder: Path, methods: str) -> Path:
    """Return the file of the results of these methods on the tiny task."""
    file = folder / "cells.jsonl.gz"
    what = ("--task-file", TASKS, "--tasks", "tiny", "--optimizers", "sgd", "--methods", methods)
    result = bench("quality", *what, "--default-start", "--seeds", 2, "--cache", folder, "--save", file)
    assert result.exit_code == 0, result.output
    return file


@pytest.mark.slow
def test_from_trainings_to_the_report(tmp_path: Path) -> None:
    """The report has the row, both methods, and how much longer it took; no training began ten times off."""
    file, report = trained(tmp_path, "mlr-snet,mlr-snet-meta"), tmp_path / "meta.md"
    assert [cell.start for cell in read_cells(file).values()] == [1.0] * 4
    result = bench("meta", "--cells", file, "--tuned", file, "--out", report)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in report.read_text(encoding="utf-8").splitlines() if "tiny / sgd" in line)
    parts = [part.strip() for part in line.strip("|").split("|")]
    assert parts[1:4] == ["near", "2", "-"]
    assert float(parts[4]) > 0
    assert float(parts[5]) > 0
    assert parts[7].startswith("x")


@pytest.mark.slow
def test_results_without_meta_mode_are_refused(tmp_path: Path) -> None:
    """The error says which methods to run."""
    file = trained(tmp_path, "mlr-snet")
    result = bench("meta", "--cells", file, "--tuned", file, "--out", tmp_path / "meta.md")
    assert result.exit_code == 1
    assert "mlr-snet-meta or paper-meta; run them" in result.output
    assert not (tmp_path / "meta.md").exists()
