"""The report as files: what the Markdown says, and the pictures beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlrs_bench.report import Summary, benchmark_scope, write_report
from mlrs_bench.report.figures.methods import ABLATIONS
from mlrs_bench.report.figures.scope import UNTOUCHED_TASKS
from mlrs_bench.report.figures.targets import EVERY
from mlrs_bench.report.figures.wording import interval, record
from mlrs_bench.report.pages.markdown import READING
from mlrs_bench.report.pages.panels import mean_curve
from mlrs_bench.report.pages.tables import table
from mlrs_bench.report.pages.verdicts import balance
from tests.bench.report.cells import benchmark, cell, row, scope_of, summary_of

TASKS = {f"task-{number}": "cross-entropy" for number in range(3)}
WORDS = ("/opt/bin/mlrs", "bench", "quality", "--out", "my folder")
PICTURES = ("gap.png", "learning-curves.png", "learning-rates.png", "matchups.png")


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Return the numbers of the whole report."""
    return summary_of(benchmark())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole report."""
    out = tmp_path_factory.mktemp("report") / "deep" / "folder"
    cells = benchmark()
    write_report(cells, scope=scope_of(cells), metrics=TASKS, out=out, words=WORDS)
    return out


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    """Return the report's Markdown."""
    return (folder / "quality.md").read_text(encoding="utf-8")


def lines(text: str, title: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    after = text.split(f"# {title}\n", 1)[1]
    found = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert found is not None
    return [[each.strip() for each in line.strip("|").split("|")] for line in found[0].splitlines()]


def test_it_begins_with_what_the_advice_is_worth(text: str, summary: Summary) -> None:
    """The first lines have the gap closed, the rows won and lost with their size, and what tuning costs."""
    beginning = text[: text.index("## Targets")]
    advised = summary.comparisons[EVERY, "search"]
    assert f"closes {interval(advised.gap)} of the gap" in beginning
    assert "6 rows, the most on" in beginning
    assert len(re.findall(r"task-. / \w+ \(-[56] %\)", beginning)) == 5
    assert "**Where it loses**: 0 rows." in beginning
    assert "Tuning took 3 trainings a row." in beginning


def test_rows_that_it_loses_are_named(tmp_path: Path) -> None:
    """By how much, too."""
    cells = [
        *row({"search": [2.0, 2.1], "tuned-cosine": [1.0, 1.1], "constant": [3.0, 3.1]}),
        *row({"search": [1.0, 1.1], "tuned-cosine": [1.0, 1.1], "constant": [3.0, 3.1]}, task="other"),
    ]
    write_report(cells, scope=scope_of(cells), metrics={}, out=tmp_path, words=WORDS)
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "**Where it loses**: 1 row, digits / sgd (+95 %)." in text
    assert "It ties on 1 rows." in text


def test_header_names_the_command(text: str) -> None:
    """The report begins with what made it and of how many trainings it speaks."""
    assert text.startswith("# Quality\n\nMade by `mlrs bench quality --out 'my folder'`: 6 rows")
    assert "252 evaluation trainings, 18 for tuning" in text


def test_targets_are_the_summarys(text: str, summary: Summary) -> None:
    """The targets table holds each target with its figure and verdict."""
    expected = [[each.name, each.goal, each.measured, each.judged, each.verdict] for each in summary.targets]
    assert lines(text, "Targets")[2:] == expected


def test_parts_are_the_summarys(text: str, summary: Summary) -> None:
    """All of the advice comes first, then what lacks a part, with what both close of the gap."""
    whole, *others = lines(text, "What each part of the advice is worth")[2:]
    assert whole == ["all", "search", "6 (6)", interval(summary.comparisons[EVERY, "search"].gap), *"----"]
    assert [line[:2] for line in others] == [[about, method] for method, about in ABLATIONS.items()]
    for line in others:
        comparison = summary.comparisons[EVERY, line[1]]
        gaps = [interval(comparison.common_gap), interval(comparison.advised_gap), "yes"]
        assert line[2:] == [
            "6 (6)",
            *gaps,
            interval(comparison.advised_ratio, "+.3f"),
            record(comparison.advised),
        ]


@pytest.mark.parametrize(("group", "title"), [(EVERY, "All rows"), ("sgd", "sgd"), ("adamw", "adamw")])
def test_standings_are_the_summarys(text: str, summary: Summary, group: str, title: str) -> None:
    """The tables over rows hold each method's interval and record."""
    found = lines(text, title)[2:]
    assert [line[0] for line in found] == list(summary.methods)
    assert len(found) == 11
    for line in found:
        comparison = summary.comparisons[group, line[0]]
        assert line[2] == interval(comparison.gap)
        assert line[4] == interval(comparison.log_ratio, "+.3f")
        assert line[-1] == ("-" if line[0] == "search" else record(comparison.advised))


def test_rows_are_the_summarys(text: str, summary: Summary) -> None:
    """Each row's losses, gap and accuracies stand in the table of rows."""
    found = lines(text, "Rows")[2:]
    assert [line[0] for line in found] == [each.name for each in summary.rows]
    for line, each in zip(found, summary.rows, strict=True):
        assert line[1] == "cross-entropy"
        assert line[2] == f"{each.mean('best tuned'):.4g} (tuned-cosine)"
        assert line[5] == f"{each.gap('search'):.2f}"
        assert line[7] == "90.0 % → 90.0 %"


def test_matrix_has_every_pair(text: str, summary: Summary) -> None:
    """The matrix holds the record of each method against each other one."""
    header, _, *found = lines(text, "Wins, ties and losses")
    assert header[1:] == [line[0] for line in found] == list(summary.methods)
    said = {
        (line[0], other): words for line in found for other, words in zip(header[1:], line[1:], strict=True)
    }
    assert len(said) == 11 * 11
    for (method, other), words in said.items():
        assert words == ("-" if other == method else record(summary.matchups[method, other]))
    assert len(summary.matchups) == 11 * 10


def test_wrong_starts_are_the_summarys(text: str, summary: Summary) -> None:
    """Each start has its median move and, beside it, what that may be at most."""
    found = lines(text, "Started at the wrong learning rate")
    assert found[0][3:5] == ["median size of move", "at most"]
    assert [line[:5] for line in found[2:]] == [
        [each.method, f"x{each.start:g}", "6", f"{each.median_move:.3f}", f"{each.median_high:.3f}"]
        for each in summary.sensitivities
    ]


def test_failures_are_counted(tmp_path: Path) -> None:
    """Trainings that diverged, were lost, or did not learn are counted apart."""
    cells = row({"search": [9.2, 2.4, 2.29, 1.0]})
    cells[0] = cell("search", 9.2, diverged=True)
    write_report(cells, scope=scope_of(cells), metrics={}, out=tmp_path, words=WORDS)
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    header, _, line = lines(text, "Divergences, and trainings that did not learn")
    assert header == ["method", "diverged", "lost", "not learning", "of runs"]
    assert line == ["search", "1", "2", "3", "4"]


def test_sections(text: str) -> None:
    """A whole report has every section, and does not call itself incomplete."""
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "Targets",
        "What each part of the advice is worth",
        "Over rows",
        "Wins, ties and losses",
        "Rows",
        "Started at the wrong learning rate",
        "Divergences, and trainings that did not learn",
        "What tuning cost",
        "What was measured",
        "How to read this",
    ]
    assert "Incomplete" not in text


def test_development_and_untouched_rows_are_apart(tmp_path: Path) -> None:
    """The figures over rows are given for development and for untouched rows as well."""
    losses = {"constant": [1.0, 1.1], "tuned-wsd": [0.5, 0.52], "search": [0.4, 0.5]}
    tasks = ("char-lstm", "cifar10-resnet", "adding-gru")
    cells = [each for task in tasks for each in row(losses, task=task)]
    write_report(cells, scope=benchmark_scope(), metrics={}, out=tmp_path, words=WORDS)
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    found = {title: lines(text, title)[2][:2] for title in ("Development rows", "Untouched rows")}
    assert found == {"Development rows": ["search", "2 (2)"], "Untouched rows": ["search", "1 (1)"]}


def test_reading_names_every_untouched_task() -> None:
    """The report says which rows are untouched; all other built-in ones are development rows."""
    said = re.search(r"\*Untouched rows\* \(([^)]*)\)", READING)
    assert said is not None
    assert set(said[1].split(", ")) == UNTOUCHED_TASKS


def test_pictures_exist(folder: Path, text: str) -> None:
    """Each picture is linked, as wide as a README shows, and not blank."""
    assert sorted(path.name for path in folder.glob("*.png")) == sorted(PICTURES)
    for name in PICTURES:
        assert f"]({name})" in text
        picture = imread(folder / name)
        assert 800 <= picture.shape[1] <= 1000
        colours = np.unique(picture[..., :3].reshape(-1, 3), axis=0)
        assert len(colours) > 20


def test_partial_data(tmp_path: Path) -> None:
    """Whatever part of a benchmark there is, the report is written and says what is missing."""
    cells = benchmark()
    for number in (1, 4, 80):
        write_report(cells[:number], scope=scope_of(cells), metrics=TASKS, out=tmp_path, words=WORDS)
        assert "**Incomplete.**" in (tmp_path / "quality.md").read_text(encoding="utf-8")
        assert all((tmp_path / name).exists() for name in PICTURES)


def test_no_cells(tmp_path: Path) -> None:
    """Without cells there is a report without pictures."""
    write_report([], scope=benchmark_scope(), metrics=TASKS, out=tmp_path, words=WORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["quality.md"]
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "- no evaluation: digits-cnn / sgd, digits-cnn / adamw, " in text
    assert "- official: not run\n" in text


def test_bad_runs_are_drawn(tmp_path: Path) -> None:
    """Curves that are empty or end in NaN, and a method far off, spoil no picture."""
    losses = {"constant": [1.0, 1.01], "tuned-wsd": [0.5, 0.52], "search": [9.0, 9.5]}
    cells = row(losses, train_curve=((0, 2.0), (50, float("nan"))))
    cells += [cell("cosine", 2.3, diverged=True, train_curve=(), lr_curve=((0, 0.0), (9, 0.0)))]
    write_report(cells, scope=scope_of(cells), metrics={}, out=tmp_path, words=WORDS)
    assert "| -16.66 |" in (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_excluded_rows_are_listed(tmp_path: Path) -> None:
    """A row without a gap figure stands in a list of its own, with the reason."""
    cells = row({"constant": [1.0, 1.0], "tuned-wsd": [1.1, 1.1]})
    write_report(cells, scope=scope_of(cells), metrics={}, out=tmp_path, words=WORDS)
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "| digits / sgd | tuning gains nothing beyond the noise: -0.1 ± 0 |" in text


def test_mean_curve_by_hand() -> None:
    """Curves are averaged where they overlap; past its end, and where it is NaN, one does not count."""
    steps, values = mean_curve([((0, 1.0), (10, 3.0)), ((0, 3.0), (5, 4.0), (10, float("nan")))])
    assert list(steps) == [0.0, 5.0, 10.0]
    assert list(values) == [2.0, 3.0, 3.0]
    assert mean_curve([()])[0].size == 0


def test_balance_by_hand() -> None:
    """The heat map shows (wins - losses) / rows, and nothing where no row is decided."""
    summary = summary_of([*row({"constant": [1.0, 1.0], "cosine": [0.5, 0.5]}), cell("step", 1.0)])
    shares = balance(summary.methods, summary.matchups)
    assert summary.methods == ("constant", "cosine", "step")
    assert shares.filled(9.0).tolist() == [[9.0, -1.0, 9.0], [1.0, 9.0, 9.0], [9.0, 9.0, 9.0]]


def test_a_bar_does_not_split_a_cell() -> None:
    """A vertical bar in a name stays inside its cell."""
    assert table(("a",), [("x|y",)]) == "| a |\n| :--- |\n| x\\|y |\n"
