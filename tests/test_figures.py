"""What slow tests measured: saved where no committed file is, and published by a command."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlrs_bench.cache import read_cells
from mlrs_bench.memory.bench import read_lineages
from mlrs_bench.memory.page import write_page
from tests.support import reliability

ROOT = Path(__file__).parents[1]
SAVE = """
import runpy
save = runpy.run_path("tests/support/reliability.py")["save"]
save("soak", "pytest -m slow made_up.py", 0.0, 61.0, errors=20_617)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what has a part in figures."""
    packages = ("performance/__init__.py", "performance/report/__init__.py")
    files = ("performance/report/reliability.py", "docs/reliability.md", "tests/support/reliability.py")
    for file in packages + files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    shutil.copytree(ROOT / "docs" / "reliability", tmp_path / "docs" / "reliability")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file below a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(copy: Path, *arguments: str) -> str:
    """Run Python in a copy; return what it printed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_git_ignores_what_tests_save() -> None:
    """No test that saves figures can change a committed file, for git ignores the folder they go to."""
    file = reliability.FOLDER / "soak.json"
    assert file.is_relative_to(ROOT)
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    ignored = subprocess.run([git, "check-ignore", "--quiet", file], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_saved_figures_wait_for_a_command(copy: Path) -> None:
    """Saving figures changes no file of the docs; `performance/report/reliability.py` takes them there."""
    before = contents(copy / "docs")
    run(copy, "-c", SAVE)
    assert contents(copy / "docs") == before
    assert "new figures: soak" in run(copy, "-m", "performance.report.reliability")
    saved = json.loads((copy / "docs" / "reliability" / "soak.json").read_text(encoding="utf-8"))
    assert saved["figures"] == {"errors": 20_617}
    page = (copy / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert "errors 20,617" in page
    assert "pytest -m slow made_up.py" in page


def test_page_is_what_the_figures_make(copy: Path) -> None:
    """The committed page is what the command makes of the committed figures."""
    before = contents(copy / "docs")
    assert "new figures: none" in run(copy, "-m", "performance.report.reliability")
    assert contents(copy / "docs") == before


def words_of(page: str) -> str:
    """Return a page as one line."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_the_pages_claim_what_the_table_says() -> None:
    """The figures of the README and of the page about the worth of advice are those of the quality table."""
    table = (ROOT / "docs" / "quality" / "quality.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.split("|")] for line in table.split("\n") if line.startswith("|")]
    rows = {line[1]: line for line in reversed(lines)}  # the first of a name counts: all rows come first
    gap = rows["gap to the best tuned schedule closed"][3]
    near = rows["final loss near the best tuned one's"][3].removesuffix(" of rows")
    worst, row = (
        rows["final loss never far from the tuned ones"][3].removeprefix("+").removesuffix(")").split(" (")
    )
    begin = next(index for index, line in enumerate(lines) if line[1:3] == ["row", "search"])
    ends = next(dict(zip(lines[begin], line, strict=True)) for line in lines[begin:] if line[1] == row)
    lost, trainings = rows["trainings lost"][3].removesuffix(" runs").split(" of ")
    readme, claim = words_of("README.md"), words_of("docs/concepts/worth.md")
    assert f"closes **{gap}** of the gap" in readme
    assert f"an untuned cosine {rows['cosine'][3].split()[0]}" in readme
    assert f"and [rescue](../guides/rescue.md)** | **{gap}** |" in claim
    for method, said in (
        ("search-signals", "the same, told no validation losses"),
        ("mlr-snet", "the network alone, without a search"),
        ("cosine", "a cosine from the default learning rate, untuned"),
        ("tuned-cosine", "a cosine that was tuned on the task"),
    ):
        assert f"| {said} | {rows[method][3]} |" in claim
    assert f"best tuned one on {near} of the rows" in claim
    assert f"The worst row is {row.replace(' / adamw', ' under AdamW')}: there" in claim
    assert f"That is {1 + float(worst.removesuffix(' %')) / 100:.0f} times the loss of the worst" in claim
    assert f"end at a loss of {ends['search']} in the mean" in claim
    assert max(float(ends[f"tuned-{kind}"]) for kind in ("cosine", "linear", "wsd")) < 0.0005
    assert f"Of the {trainings} trainings after a search, {lost} ended above their first test loss" in claim


def test_the_page_about_memory_is_what_its_sequences_make(tmp_path: Path) -> None:
    """The committed page has the tables that the kept sequences give, and other pages claim what it says."""
    kept = ROOT / "docs" / "quality"
    lineages = list(read_lineages(kept / "memory-lineages.jsonl.gz").values())
    write_page(lineages, list(read_cells(kept / "cells.jsonl.gz").values()), out=tmp_path, words=["mlrs"])
    made, page = ((folder / "memory.md").read_text(encoding="utf-8") for folder in (tmp_path, kept))
    tables = made.split("## Targets")[1]
    assert tables == page.split("## Targets")[1]
    lines = [
        [cell.strip() for cell in line.split("|")] for line in tables.split("\n") if line.startswith("|")
    ]
    gaps = {line[1]: line[3] for line in lines if len(line) == 8}
    assert f"careful ones, closes **{gaps['careful run 8']}**." in words_of("README.md")
    worth = words_of("docs/concepts/worth.md")
    assert f"after seven careful ones ([memory](../guides/memory.md)) | {gaps['careful run 8']} |" in worth
    assert f"after five that explored fully | {gaps['full run 6']} |" in worth


def test_the_two_large_rows_are_those_of_the_trainings() -> None:
    """The table of the large rows has the final losses that are kept, and each seed's."""
    packed = (ROOT / "docs" / "quality" / "large-cells.jsonl.gz").read_bytes()
    cells = [json.loads(line)["cell"] for line in gzip.decompress(packed).splitlines()]
    page = (ROOT / "docs" / "guides" / "quality-tasks.md").read_text(encoding="utf-8")
    for task, optimizer in (("text-transformer-5m", "adamw"), ("cifar10-resnet18", "sgd")):
        (line,) = [line for line in page.split("\n") if line.startswith(f"| {task} / {optimizer} |")]
        tuned, rate, search, rates, difference = (cell.strip() for cell in line.split("|")[2:-1])
        of = {
            method: sorted(
                (
                    cell
                    for cell in cells
                    if (cell["task"], cell["method"], cell["purpose"]) == (task, method, "eval")
                ),
                key=lambda cell: cell["seed"],
            )
            for method in ("tuned-wsd", "search")
        }
        assert tuned == ", ".join(f"{cell['test_loss']:.3f}" for cell in of["tuned-wsd"])
        assert search == ", ".join(f"{cell['test_loss']:.3f}" for cell in of["search"])
        assert {cell["base_lr"] for cell in of["tuned-wsd"]} == {float(rate)}
        highest = (max(lr for _, lr in cell["lr_curve"]) for cell in of["search"])
        assert rates == ", ".join(f"{lr:.4f}" for lr in highest)
        one, other = (
            a["test_loss"] - b["test_loss"] for a, b in zip(of["search"], of["tuned-wsd"], strict=True)
        )
        assert difference == f"{(one + other) / 2:+.3f} \u00b1 {abs(one - other):.3f}"
