"""`mlrs bench meta`: the report of what meta mode does for the advice, from results that are there."""

from __future__ import annotations

import sys
from pathlib import Path

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--cells",
    type=FILE,
    required=True,
    help="Results of `bench quality --save`, of the methods of meta mode.",
)
@click.option("--tuned", type=FILE, required=True, help="Such results, of the tuned schedules.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    required=True,
    help="Write the report to it.",
)
def meta(cells: Path, tuned: Path, out: Path) -> None:
    """Compare meta mode with the frozen network, on rows far from meta-training and on the others.

    \b
    Examples:
      mlrs bench quality --methods mlr-snet,mlr-snet-meta,paper-meta --save cells.jsonl.gz
      mlrs bench meta --cells cells.jsonl.gz --tuned docs/quality/cells.jsonl.gz --out meta.md
    """
    try:
        from mlrs_bench.cache import read_cells
        from mlrs_bench.errors import BenchError
        from mlrs_bench.report.figures.provenance import command_line
        from mlrs_bench.report.pages.meta import meta_report
    except ImportError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'mlrs[bench]'") from error
    try:
        found, yardsticks = read_cells(cells).values(), read_cells(tuned).values()
        text = meta_report(found, yardsticks, command=command_line(sys.argv))
        out.write_text(text, encoding="utf-8")
    except (BenchError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror}; give a file that can be written") from error
    click.echo(f"{out}: the tables")
