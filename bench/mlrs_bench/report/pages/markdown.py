"""`quality.md`: the whole report as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlrs_bench.report.figures.coverage import Missing
from mlrs_bench.report.figures.provenance import Machine
from mlrs_bench.report.figures.summary import DEVELOPMENT, UNTOUCHED, Summary
from mlrs_bench.report.figures.targets import EVERY
from mlrs_bench.report.pages import tables
from mlrs_bench.report.pages.in_short import in_short

READING = """\
- A *row* is a task under one optimizer. L is the mean final test loss over evaluation seeds; on a seed, \
every method starts from the same weights and sees the same batches, so differences are taken seed by seed.
- *Best tuned* is, on each row, whichever of tuned-cosine, tuned-linear and tuned-wsd has the least L. \
Choosing the best of three after the fact, on the losses they are judged by, favours this baseline.
- Rows are not independent: a task appears under each optimizer, and six tasks (digits-cnn, -noisy, -tenth, \
digits-autoencoder, digits-mixer, linear) share the digits data. tabular-regression has 80 test rows only.
- `paper` was meta-trained on digits: for it, those rows are not new.
- *Development rows* were looked at while the rules of the search were fitted, all but the cifar10-* ones \
also while meta-training's task distribution was changed: figures on them may flatter the advice. *Untouched \
rows* (ratings-factors, coordinates-sine, adding-gru, digits-mixer) were named before anything was measured \
on them.
- *search* finds the learning rate to begin with in a few short trials, through the adapter of PyTorch; its \
steps are charged: the training has so many fewer. For *search-uncharged* they are not. The finders of other \
packages are charged for their 100 steps. Afterwards the daemon is told losses, signals of the optimizer \
and, at 20 steps, validation losses. *search-signals* tells no validation losses, *search-losses* neither; \
after *search-schedule*, *search-linear* and *search-cosine*, a schedule follows. The validation examples \
are those that the tuned schedules were chosen by; measuring a validation loss is not charged.
- *Gap closed* is (L_constant - L) / (L_constant - L_best): 0 is as good as the default learning rate, \
1 as good as the best tuned schedule, above 1 better. A row where tuning gains nothing beyond two standard \
errors of the paired difference has no gap to close: it is listed as excluded, and still counts in the log \
ratios. The scale of a row is held fixed in the bootstrap.
- *ln ratio* is ln(L / L_best): 0 is as good as the best tuned schedule, +0.02 about 2 % worse. It does \
not depend on the constant schedule; on losses near 0, small differences are large ratios. Median, worst and \
"within 2 %" take a row's mean losses, the IQM its seeds.
- *IQM* is the interquartile mean over rows and seeds, its interval a stratified bootstrap (seeds drawn \
anew within each row), after Agarwal et al. 2021, *Deep Reinforcement Learning at the Edge of the \
Statistical Precipice*. The interval is about the noise of trainings on these rows, not about other tasks.
- *rows*: in how many the method ran, in brackets how many have a gap figure. A method that did not run on \
every row is compared on the rows that it shares.
- *W / T / L*: wins, ties and losses by row, at two standard errors of the paired difference. With few \
seeds that is laxer than 95 %, and no correction is made for the number of comparisons.
- *Apart*: the intervals of the gap closed, both on the rows that both ran on, do not overlap.
- A target is *met* or *missed* only when all rows, methods, starts and seeds that it speaks of were \
measured; *judged on* says on how many rows its figure is defined.
- A final test loss counts as it is up to four times the loss before training; one above that, or that is \
no number, counts as four times. *Diverged*: a training loss was no number, or the final test loss is none \
or above three times the loss before training. *Lost*: the final test loss is no number, or above the one \
before training. *Not learning*: ended within 5 % of the loss before training, \
or above it, diverged or not.
- *tuned-schedule-free* was tuned as the schedules were, but is an optimizer: it does not define best tuned.
- *Start*: the learning rate that a training begins with, as a multiple of the default one; a move is \
ln(L from there / L from the default one).
"""


def report(summary: Summary, metrics: Mapping[str, str], *, command: str, machine: Machine) -> str:
    """Return the report.

    Args:
        summary: the numbers.
        metrics: what the loss of each task is, by task.
        command: what made the report, for its header.
        machine: where it was made.
    """
    parts = [_header(summary, command), in_short(summary), _missing(summary.missing)]
    parts.append(_section("Targets", tables.target_table(summary)))
    if summary.rows:
        parts.append(_section("What each part of the advice is worth", tables.ablation_table(summary)))
    parts.append(_over_rows(summary))
    parts += [_section("Wins, ties and losses", _matchups(summary)), _rows(summary, metrics)]
    if summary.sensitivities:
        moved = tables.sensitivity_table(summary)
        parts.append(_section("Started at the wrong learning rate", moved))
    parts.append(_section("Divergences, and trainings that did not learn", tables.stability_table(summary)))
    if summary.tuning:
        parts.append(_section("What tuning cost", tables.tuning_table(summary)))
    parts.append(_section("What was measured", _measured(summary, machine)))
    parts.append(_section("How to read this", READING))
    return "\n".join(part for part in parts if part)


def _header(summary: Summary, command: str) -> str:
    trainings = sum(each.runs for each in summary.stabilities.values())
    searched = sum(each.runs for each in summary.tuning.values())
    return (
        f"# Quality\n\nMade by `{command}`: {len(summary.rows)} rows (a task under an optimizer), "
        f"{trainings} evaluation trainings, {searched} for tuning.\n"
    )


def _missing(missing: Sequence[Missing]) -> str:
    if not missing:
        return ""
    listed = "".join(f"- {each.what}{': ' + ', '.join(each.rows) if each.rows else ''}\n" for each in missing)
    return f"**Incomplete.** Every figure below is of what has been measured. Missing:\n\n{listed}"


def _measured(summary: Summary, machine: Machine) -> str:
    seeds = ", ".join(map(str, summary.measured.seeds)) or "none"
    tuning = ", ".join(map(str, summary.measured.tuning_seeds)) or "none"
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"- Seeds of evaluation: {seeds}; of tuning: {tuning}.\n"
        f"- This report was written on {machine.platform}, {machine.cpu}; torch trains with 1 thread.\n"
        f"- With {packages}.\n\n{tables.identity_table(summary)}"
    )


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _over_rows(summary: Summary) -> str:
    parts = ["## Over rows\n", "![Gap closed by method](gap.png)\n"] if summary.rows else []
    for group in summary.groups:
        parts += [f"### {_title(group)}\n", tables.standing_table(summary, group)]
    return "\n".join(parts)


def _title(group: str) -> str:
    titles = {EVERY: "All rows", DEVELOPMENT: "Development rows", UNTOUCHED: "Untouched rows"}
    return titles.get(group, group)


def _matchups(summary: Summary) -> str:
    if not summary.rows:
        return ""
    picture = "![Wins, ties and losses](matchups.png)"
    return f"Of the method at the left against the one above.\n\n{picture}\n\n{tables.matchup_table(summary)}"


def _rows(summary: Summary, metrics: Mapping[str, str]) -> str:
    if not summary.rows:
        return ""
    parts = ["## Rows\n", tables.row_table(summary, metrics)]
    if any(row.excluded for row in summary.rows):
        parts += ["Without a gap figure:\n", tables.excluded_table(summary)]
    parts += ["### Final loss by method\n", tables.loss_table(summary)]
    parts += ["![Learning curves](learning-curves.png)\n", "![Learning rates](learning-rates.png)\n"]
    return "\n".join(parts)
