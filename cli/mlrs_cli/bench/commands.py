"""`mlrs bench`: how good the advice is."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mlrs_cli.bench.memory import memory
from mlrs_cli.bench.meta import meta
from mlrs_cli.bench.options import FILE, FOLDER, INTERRUPTED, OUTPUT, explained, names
from mlrs_cli.root import print_table

if TYPE_CHECKING:  # it needs the extra `bench`, which the command's help does not
    from mlrs_bench.bench import Table as Cells
    from mlrs_bench.bench import TableProgress
    from mlrs_bench.cell import Cell


@click.group()
def bench() -> None:
    """Measure how good the advice is."""


bench.add_command(meta)
bench.add_command(memory)


@bench.command()
@click.option("--tasks", callback=names, metavar="NAMES", help="What to train. Default: all.")
@click.option("--optimizers", callback=names, metavar="NAMES", help="With what: sgd, adamw. Default: both.")
@click.option(
    "--methods",
    callback=names,
    metavar="NAMES",
    help="What sets the learning rate. Default: all; --list shows them.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Trainings that are evaluated, of each kind.",
)
@click.option(
    "--default-start", is_flag=True, help="Begin at the default learning rate only, never at one that is off."
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time."
)
@click.option(
    "--model",
    metavar="NAME|FILE",
    help="The network in question, method `mlr-snet`: a shipped model or a .safetensors file. "
    "Default: the shipped `mlr-snet`.",
)
@click.option(
    "--official",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the authors' .pth files, for the method `official`.",
)
@click.option("--cifar10", type=FILE, help="CIFAR-10 as JPEG in an .npz, for the tasks of that name.")
@click.option("--task-file", type=FILE, help="A Python file with tasks of your own. It is run.")
@click.option(
    "--cache",
    type=FOLDER,
    envvar="MLRS_BENCH_CACHE",
    show_envvar=True,
    help="Where results are kept. Default: the platform's cache folder.",
)
@click.option(
    "--known",
    type=FILE,
    multiple=True,
    help="Results of before, as --save wrote them: those that still hold are not computed again.",
)
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all results to it, packed, for --known: here or on another machine.",
)
@click.option("--out", type=OUTPUT, help="Write quality.md and its pictures into this folder.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all results to it.",
)
@click.option(
    "--list", "list_only", is_flag=True, help="Show what is done and what is missing; train nothing."
)
@click.pass_context
def quality(context: click.Context, /, **options: Any) -> None:
    """Train tasks to the end under many learning-rate methods, and compare the final test losses.

    Each row is a task with an optimizer. Schedules are also tuned on each row, on seeds of their own and
    by validation loss, over learning rates at half-decade steps. The advice is not tuned. Within a row and
    a seed, trainings begin at the same weights and see the same batches.

    Results are kept as they come: Ctrl-C loses nothing, the same command goes on, and a changed model
    costs its own trainings only.

    \b
    Examples:
      mlrs bench quality --tasks digits-cnn --optimizers sgd --seeds 2     a look in some minutes
      mlrs bench quality --list                                            what there is to do
      mlrs bench quality --workers 4 --out docs/quality                    all of it, with a report
      mlrs bench quality --model runs/mine/model.safetensors --methods mlr-snet
      mlrs bench quality --task-file my_tasks.py                           tasks of your own
    """
    _check_outputs(options)
    with explained():
        table = _open(options)
        if options["list_only"]:
            _list(table)
        elif not _train(table, options["workers"]):
            click.echo("Interrupted. What was trained is kept; the same command goes on.")
            context.exit(INTERRUPTED)
        _tell_edges(table)
        _write(table, options)


def _check_outputs(options: dict[str, Any]) -> None:
    """Refuse output paths that cannot be written to before hours of training, not after."""
    for option, name in (("--json", "json_file"), ("--save", "save")):
        if (file := options[name]) is not None:
            _check_folder(option, file.parent)
    if (out := options["out"]) is not None:
        _check_folder("--out", out if out.exists() else out.parent)


def _check_folder(option: str, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = f"{folder}: {error.strerror}; give a folder that is there and can be written to"
        raise click.BadParameter(reason, param_hint=f"'{option}'") from error


def _open(options: dict[str, Any]) -> Cells:
    """Return the table that these options ask for."""
    from mlrs_bench.bench import Request
    from mlrs_bench.bench import Table as Cells

    names = ("tasks", "optimizers", "methods", "seeds", "default_start", "model", "official", "cifar10")
    return Cells(
        Request(
            cache=options["cache"] or Path(platformdirs.user_cache_dir("mlrs")) / "bench",
            **{name: options[name] for name in (*names, "task_file", "known")},
        )
    )


def _train(table: Cells, workers: int) -> bool:
    """Do the trainings that are missing, with a progress bar; return whether they were all done."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.fields[cells]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        bar = progress.add_task("starting", total=None, cells="", last="")

        def watch(state: TableProgress, cell: Cell | None) -> None:
            phase, cells = "tuning" if state.tuning else "evaluating", f"{state.cells_done} of {state.cells}"
            last = "" if cell is None else _describe(cell)
            progress.update(
                bar, description=phase, total=state.all, completed=state.done, cells=cells, last=last
            )
            if cell is not None and not console.is_terminal:  # a log, where a bar shows at the end only
                click.echo(f"{phase}, {cells}: {last}", err=True)

        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            table.run(workers=workers, watch=watch)
        except KeyboardInterrupt:
            return False
        finally:
            signal.signal(signal.SIGTERM, before)
    return True


def _describe(cell: Cell) -> str:
    end = "diverged" if cell.diverged else f"{cell.test_loss:.4f}"
    return f"{cell.task} / {cell.optimizer}, {cell.method}: {end}"


def _list(table: Cells) -> None:
    """Print how many trainings of each method and row are done, of how many."""
    stage = table.stage()
    done: Counter[tuple[str, str, str, str]] = Counter()
    wanted: Counter[tuple[str, str, str, str]] = Counter()
    for key in [*stage.tune, *stage.evaluate, *stage.undecided]:
        group = (key.task, key.optimizer, key.method, str(key.purpose))
        wanted[group] += 1
        done[group] += table.find(key) is not None
    shown = Table("task", "optimizer", "method", "for", "done", "missing")
    for group, count in sorted(wanted.items()):
        shown.add_row(*group, str(done[group]), str(count - done[group]))
    print_table(shown)
    click.echo(f"{done.total():,} of {wanted.total():,} trainings are done.")
    if stage.undecided:
        click.echo("More may follow where the best base LR is at the edge of those tried.")
    for name, reason in table.absent.items():
        click.echo(f"{name} is left out: it needs {reason}")


def _tell_edges(table: Cells) -> None:
    """Say where tuning ended at an edge: a better base LR may lie beyond."""
    for edge in table.stage().edges:
        click.echo(
            f"{edge.task} / {edge.optimizer}, {edge.method}: the best base LR, {edge.base_lr:g}, is at the "
            "edge of those tried; a better one may lie beyond"
        )


def _write(table: Cells, options: dict[str, Any]) -> None:
    """Write the results where they are wanted."""
    cells = table.cells()
    if (file := options["json_file"]) is not None:
        file.write_text(json.dumps([cell.to_json() for cell in cells], indent=1) + "\n", encoding="utf-8")
        click.echo(f"{file}: {len(cells):,} trainings")
    if (file := options["save"]) is not None:
        click.echo(f"{file}: {table.write(file):,} trainings, for --known")
    if (out := options["out"]) is not None:
        from mlrs_bench.report import benchmark_scope, write_report

        asked = [(task.name, optimizer) for task, optimizer in table.plan.rows]
        write_report(
            cells,
            scope=benchmark_scope(asked if options["task_file"] is not None else None),
            metrics={task.name: task.loss_name for task in table.plan.tasks},
            out=out,
            words=sys.argv,
        )
        click.echo(f"{out / 'quality.md'}: the tables and pictures")
    if not (options["json_file"] or options["save"] or out or options["list_only"]):
        click.echo(f"{len(cells):,} trainings are there. Write them with --json FILE or --out FOLDER.")
