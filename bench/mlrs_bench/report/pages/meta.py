"""`meta.md`: whether meta mode helps, on the rows where it should and on those where it must not harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.bootstrap import Estimate
from mlrs_bench.report.figures.comparisons import log_ratio, matchup
from mlrs_bench.report.figures.losses import Key, describe, diverged, evaluations
from mlrs_bench.report.figures.methods import BEST_TUNED, META, NETWORK, TUNED
from mlrs_bench.report.figures.rows import Row, rows_of
from mlrs_bench.report.figures.statistics import Outcome
from mlrs_bench.report.figures.wording import NOTHING, interval, loss, record
from mlrs_bench.report.pages.tables import table

ADVISED_META, PAPER_META, RESCUED = META
PAPER = "paper"
"""The paper's network as it was meta-trained, frozen."""
PAIRS = (
    (ADVISED_META, NETWORK),
    (PAPER_META, PAPER),
    (PAPER_META, NETWORK),
    (RESCUED, NETWORK),
    (RESCUED, ADVISED_META),
)
"""What is compared with what."""
FAR: frozenset[Key] = frozenset(
    {
        ("char-lstm", "sgd"),
        ("char-transformer", "sgd"),
        ("tabular-regression", "adamw"),
        ("linear", "sgd"),
        ("linear", "adamw"),
    }
)
"""The rows named as far from meta-training before meta mode was measured: their best learning rates are
decades from the default ones. All others are near."""
HARM = 0.02
"""Meta mode does not lose where the interval of ln(L_meta / L_frozen) ends below this."""
SEED = 0
"""The seed of the bootstrap."""
READING = f"""\
- A *row* is a task under one optimizer; losses are final test losses, means over the seeds that all methods \
share. On a seed, every method starts from the same weights and sees the same batches.
- *Frozen* is `{NETWORK}` as it is served by default, on some seeds as measured before, to the same bits. \
`{ADVISED_META}` is the same network in meta mode at its defaults, `{PAPER_META}` the paper's network in \
meta mode from random weights, under SGD only, which its scale of learning rates is a rule for; `{PAPER}` is \
the shipped one, meta-trained and frozen. `{RESCUED}` is `{ADVISED_META}` with rescue, told the validation \
loss at 20 steps; it was trained only on tasks on which `{ADVISED_META}` had lost or diverged.
- Meta mode sees gradients of validation losses; the validation examples are those that the tuned schedules \
were chosen by. *Best tuned* is chosen after the fact among three, which favours it.
- *Far* and *near* rows were named before meta mode was measured. The settings of meta mode were chosen on \
some of these rows with other seeds; seeds 100 and 101 had been seen once, with the gradient at the end of \
the step, before halfway was chosen.
- Intervals are 95 % of the stratified bootstrap of the interquartile mean over seeds (and rows), as in \
quality.md. ln ratios below 0: meta mode is better. W / T / L at two standard errors of the paired \
difference. *Does not lose*: the interval has 0 in it and ends below {HARM:+g}; *undecided*: it ends above.
- *Time* is that of a training, meta mode's over frozen `{NETWORK}`'s on the same seeds, daemon and \
validation gradients included: what updates cost beside steps as small as these. The machine was shared, \
so a single figure may be off by half.
"""


def meta_report(cells: Iterable[Cell], yardsticks: Iterable[Cell], *, command: str) -> str:
    """Return the report.

    Args:
        cells: evaluations of the frozen network and of meta mode.
        yardsticks: a benchmark's, of which the tuned schedules and the paper's network count; and the frozen
            network on seeds where it is not among the cells.
        command: what makes the report.

    Raises:
        ValueError: two cells are the same measurement, or none are of meta mode, or the frozen network is
            another one in the yardsticks.
    """
    ran = [cell for cell in evaluations(cells) if cell.method in (NETWORK, *META)]
    pairs = {(cell.row, cell.seed) for cell in ran if cell.method in META}
    keys = {key for key, _ in pairs}
    known = [cell for cell in evaluations(yardsticks) if (cell.row, cell.seed) in pairs]
    others = [cell for cell in known if cell.method in (*TUNED, PAPER)]
    rows = [
        row for row in rows_of([*ran, *_frozen(ran, known), *others]) if (row.task, row.optimizer) in keys
    ]
    if not rows:
        raise ValueError(f"cells: none are of {', '.join(META)}; run them with `mlrs bench quality`")
    parts = [f"# Meta mode\n\nMade by `{command}`: {len(rows)} rows, {len(ran)} trainings.\n"]
    parts += ["## Does it help?\n", _groups(rows), "## Rows\n", _rows(rows, ran)]
    return "\n".join([*parts, _lost(rows), _diverged(ran), "## How to read this\n", READING])


def _lost(rows: Sequence[Row]) -> str:
    """Return the rows on which the network in question is worse off in meta mode."""
    lines = []
    for method in (ADVISED_META, RESCUED):
        lost = [row.name for row in rows if row.outcome(method, NETWORK) is Outcome.LOSS]
        lines.append(f"Rows on which {method} loses beyond the noise: {', '.join(lost) or 'none'}.\n")
    return "\n".join(lines)


def _diverged(ran: Sequence[Cell]) -> str:
    """Return which trainings in meta mode diverged."""
    lost = [describe(cell) for cell in ran if cell.method in META and diverged(cell)]
    return f"Diverged: {'; '.join(lost) or 'none'}.\n"


def _frozen(ran: Sequence[Cell], known: Sequence[Cell]) -> list[Cell]:
    """Return the known cells of the frozen network that were not measured again; where one was, it agrees."""
    mine = {(*cell.row, cell.seed): cell for cell in ran if cell.method == NETWORK}
    theirs = {(*cell.row, cell.seed): cell for cell in known if cell.method == NETWORK}
    for pair in mine.keys() & theirs.keys():
        if mine[pair].test_loss != theirs[pair].test_loss:
            raise ValueError(
                f"{describe(mine[pair])}: ended at {mine[pair].test_loss}, in the other file at "
                f"{theirs[pair].test_loss}; give results of the same network and libraries"
            )
    return [cell for pair, cell in theirs.items() if pair not in mine]


def _groups(rows: Sequence[Row]) -> str:
    near = [row for row in rows if (row.task, row.optimizer) not in FAR]
    far = [row for row in rows if (row.task, row.optimizer) in FAR]
    header = ("rows", "method", "against", "count", "ln ratio, IQM [95 %]", "W / T / L", "verdict")
    lines = []
    for name, group in (("far", far), ("near", near), ("all", rows)):
        for method, other in PAIRS:
            estimate, count = log_ratio(group, method, other, seed=SEED)
            counts = record(matchup(group, method, other))
            verdict = NOTHING if name == "all" else _verdict(estimate)
            lines.append((name, method, other, str(count), interval(estimate, "+.3f"), counts, verdict))
    return table(header, lines)


def _verdict(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOTHING
    if estimate.high < 0:
        return "gains"
    if estimate.low > 0:
        return "loses"
    return "does not lose" if estimate.high < HARM else "undecided"


def _rows(rows: Sequence[Row], ran: Sequence[Cell]) -> str:
    header = ["row", "group", "seeds", "best tuned", "frozen", ADVISED_META, "ln(it / frozen)", "time"]
    header += [PAPER, PAPER_META, f"ln(it / {PAPER})", "time"]
    return table(header, [_row(row, ran) for row in rows])


def _row(row: Row, ran: Sequence[Cell]) -> tuple[str, ...]:
    key = (row.task, row.optimizer)
    seeds = min(len(row.losses[method]) for method in (NETWORK, *META) if method in row.losses)
    parts = [row.name, "far" if key in FAR else "near", str(seeds), loss(row.mean(BEST_TUNED))]
    for method, other in PAIRS[:2]:
        ratio, _ = log_ratio([row], method, other, seed=SEED)
        parts += [loss(row.mean(other)), loss(row.mean(method)), interval(ratio, "+.3f")]
        parts.append(_slower(key, method, ran))
    return tuple(parts)


def _slower(key: Key, method: str, ran: Sequence[Cell]) -> str:
    """Return how many times as long a training takes; the median over the seeds that both have."""
    seconds = {
        name: {
            cell.seed: cell.seconds
            for cell in ran
            if (cell.task, cell.optimizer, cell.method) == (*key, name)
        }
        for name in (method, NETWORK)
    }
    shared = seconds[method].keys() & seconds[NETWORK].keys()
    if not shared:
        return NOTHING
    return f"x{np.median([seconds[method][seed] / seconds[NETWORK][seed] for seed in sorted(shared)]):.2f}"
