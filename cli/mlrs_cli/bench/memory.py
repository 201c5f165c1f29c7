"""`mlrs bench memory`: what the memory of a task is worth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlrs_cli.bench.options import FILE, FOLDER, INTERRUPTED, explained, names

if TYPE_CHECKING:  # it needs the extra `bench`, which the command's help does not
    from mlrs_bench.memory.bench import MemoryBench
    from mlrs_bench.memory.lineage import Lineage


@click.command()
@click.option("--tasks", callback=names, metavar="NAMES", help="What to train. Default: all.")
@click.option("--optimizers", callback=names, metavar="NAMES", help="With what: sgd, adamw. Default: both.")
@click.option(
    "--scenarios",
    callback=names,
    metavar="NAMES",
    help="What to try: careful, full, horizon, batch-size, replaced. Default: all.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often, with other seeds.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time."
)
@click.option("--cifar10", type=FILE, help="CIFAR-10 as JPEG in an .npz, for the tasks of that name.")
@click.option("--task-file", type=FILE, help="A Python file with tasks of your own. It is run.")
@click.option(
    "--lineages",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    required=True,
    help="Where the results are kept; those that are in it and still hold are not made again.",
)
@click.option(
    "--cells",
    type=FILE,
    help="Results of `bench quality --save`: the tuned schedules, and runs that begin with a search.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    help="Write memory.md and its picture into this folder; needs --cells.",
)
@click.option(
    "--cache",
    type=FOLDER,
    envvar="MLRS_BENCH_CACHE",
    show_envvar=True,
    help="The folder for what takes time to decode. Default: the platform's cache folder.",
)
@click.pass_context
def memory(context: click.Context, /, **options: Any) -> None:
    """Train tasks again and again, each run advised by how those before it ended.

    Every run goes through the daemon and the adapter of PyTorch. Between runs that explore, others are
    made with the best known learning rate, on the seeds of `mlrs bench quality`, to compare them with
    tuned schedules. Also: a task whose horizon or batch size grows, and one that is replaced by another.

    Results are kept as they come: Ctrl-C loses the sequences under way only, and the same command goes on.

    \b
    Examples:
      mlrs bench memory --tasks digits-cnn --scenarios careful --repetitions 1 --lineages runs.jsonl.gz
      mlrs bench memory --workers 4 --lineages runs.jsonl.gz --cells docs/quality/cells.jsonl.gz --out .
    """
    if options["out"] is not None and options["cells"] is None:
        raise click.UsageError("--out needs --cells, which has what memory is compared with")
    with explained():
        from mlrs_bench.memory.bench import MemoryBench, MemoryRequest

        asked = ("tasks", "optimizers", "scenarios", "repetitions", "cifar10", "task_file")
        bench = MemoryBench(
            MemoryRequest(
                file=options["lineages"],
                cache=options["cache"] or Path(platformdirs.user_cache_dir("mlrs")) / "bench",
                **{name: options[name] for name in asked},
            )
        )
        if not _train(bench, options["workers"]):
            click.echo("Interrupted. The sequences that were finished are kept; the same command goes on.")
            context.exit(INTERRUPTED)
        if options["out"] is not None:
            _report(bench, options["cells"], options["out"])
        else:
            click.echo(f"{len(bench.lineages()):,} sequences are there. Report them with --cells and --out.")


def _train(bench: MemoryBench, workers: int) -> bool:
    """Make the sequences that are missing, with a progress bar; return whether they were all made."""
    columns = (
        BarColumn(),
        TextColumn("{task.completed} of {task.total} sequences"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=3600) as progress:
        bar = progress.add_task("starting", total=None)

        def watch(done: int, total: int, lineage: Lineage | None) -> None:
            last = "" if lineage is None else _described(lineage)
            progress.update(bar, completed=done, total=total, description=last)
            if lineage is not None and not console.is_terminal:
                click.echo(f"{done} of {total}: {last}", err=True)

        try:
            bench.run(workers=workers, watch=watch)
        except KeyboardInterrupt:
            return False
    return True


def _described(lineage: Lineage) -> str:
    losses = [f"{one.cell.test_loss:.4g}" for one in lineage.ended if one.compared]
    return f"{lineage.name}: {', '.join(losses)}"


def _report(bench: MemoryBench, cells: Path, out: Path) -> None:
    """Write the report."""
    from mlrs_bench.cache import read_cells
    from mlrs_bench.memory.page import write_page

    write_page(bench.lineages(), list(read_cells(cells).values()), out=out, words=sys.argv)
    click.echo(f"{out / 'memory.md'}: the table and the picture")
