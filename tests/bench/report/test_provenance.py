"""Provenance: networks, packages, seeds, machine and command."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from mlrs_bench.report import write_report
from mlrs_bench.report.figures.provenance import command_line, measured, this_machine
from tests.bench.report.cells import cell, scope_of


def test_measured() -> None:
    """Every identity of a method is kept, and the seeds of evaluation and tuning are distinguished."""
    cells = [cell("mlr-snet", 1.0, seed=100, identity="model abc"), cell("prodigy", 1.0, seed=101)]
    cells += [cell("mlr-snet", 1.0, seed=102, identity="model def"), cell("x", 1.0, seed=1, purpose="tune")]
    found = measured(cells)
    assert found.identities == {
        "mlr-snet": ("model abc", "model def"),
        "prodigy": ("prodigy",),
        "x": ("x",),
    }
    assert (found.seeds, found.tuning_seeds) == ((100, 101, 102), (1,))


def test_machine(tmp_path: Path) -> None:
    """The CPU is named as the system does, or by its architecture where it cannot be read."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Fast CPU: 9\nmodel name\t: Other\n", encoding="utf-8")
    found = this_machine(cpuinfo)
    assert found.cpu == "Fast CPU: 9"
    assert found.platform == platform.platform()
    assert found.packages["torch"] == version("torch")
    assert this_machine(tmp_path / "absent").cpu == platform.machine()


def test_command_line() -> None:
    """The program stands without its folder, and words that a shell would split are quoted."""
    assert command_line(["/opt/bin/mlrs", "bench", "a b"]) == "mlrs bench 'a b'"


def test_report_says_it_all(tmp_path: Path) -> None:
    """The report names the model's digest, the seeds, the machine and the versions."""
    cells = [cell("mlr-snet", 1.0, seed=100 + seed, identity="model abc123") for seed in range(2)]
    write_report(cells, scope=scope_of(cells), metrics={}, out=tmp_path, words=["mlrs", "bench"])
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "| mlr-snet | model abc123 |" in text
    assert "Seeds of evaluation: 100, 101; of tuning: none." in text
    assert f"{this_machine().platform}, {this_machine().cpu}; torch trains with 1 thread" in text
    assert f"Python {platform.python_version()}, mlrs " in text
