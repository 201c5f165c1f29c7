"""`mlrs models promote`, `rollback`, `history`, `diff`: versions of models, and aliases that point there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Column, Table

from mlrs_cli.daemon.store import read_store, store_options
from mlrs_cli.root import (
    DaemonAddress,
    connected,
    daemon_options,
    print_table,
    reported,
)

if TYPE_CHECKING:
    import mlrs
    from mlrs_core.models.model import Model

SHOWN = 20
"""How many runs are shown: those whose weights moved farthest."""
SHORT = 12
"""Digits of a digest in a table."""


@click.command()
@click.argument("model")
@click.option("--alias", default="", help="Point this at the new version.")
@click.option("--prefix", default="", help="Only runs whose ids begin with this.")
@click.option(
    "--min-updates", default=1, show_default=True, type=click.IntRange(1, 2**53), help="Of each run."
)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@daemon_options
def promote(
    model: str, *, alias: str, prefix: str, min_updates: int, dry_run: bool, daemon: DaemonAddress
) -> None:
    """Make a new version of MODEL, from the adapted weights of its runs in meta mode.

    Those count that were created with MODEL and learn for it (config.meta.scope = ADAPT_SCOPE_MODEL). The new
    version is MODEL plus the mean of their differences from it: one run, one voice. Runs that exist keep what
    they began with; the name MODEL stays where it points. New runs get the version by its name@digest, or by
    the alias. Needs a token of the role admin where there are tokens.

    \b
      mlrs models promote mine --dry-run                   who would count, and how far they went
      mlrs models promote mine --alias stable --min-updates 50
      mlrs models diff mine stable                         what it changes
      mlrs models rollback stable                          take it back
    """
    from mlrs_cli import admin

    made = admin.promote(
        daemon, model=model, alias=alias, prefix=prefix, min_updates=min_updates, dry_run=dry_run
    )
    table = Table("run", Column("updates", justify="right"), Column("change", justify="right"))
    farthest = sorted(made.contributions, key=lambda run: -run.relative_change)[:SHOWN]
    for run in farthest:
        table.add_row(run.run_id, f"{run.updates:,}", f"{run.relative_change:.3%}")
    if made.run_count > len(farthest):
        table.add_row(f"... and {made.run_count - len(farthest):,} more", "", "")
    print_table(table)
    runs = "1 run" if made.run_count == 1 else f"{made.run_count:,} runs"
    if not made.HasField("model"):
        click.echo(
            f"nothing was made; of {runs}, the new version would be {made.relative_change:.3%} from {model}"
        )
        return
    click.echo(f"made {made.model.ref} of {runs}, {made.relative_change:.3%} from {model}")
    if alias:
        click.echo(f"{alias} is {made.model.ref} from now on")


@click.command()
@click.argument("alias")
@daemon_options
def rollback(alias: str, daemon: DaemonAddress) -> None:
    """Point ALIAS back at what it pointed at before; again, further back.

    Runs that exist keep the model they began with. `mlrs models history ALIAS` shows where it has pointed.
    Needs a token of the role admin where there are tokens.
    """
    from mlrs_cli import admin

    found = admin.rollback_alias(daemon, alias)
    click.echo(f"{alias} is {found.ref} from now on")


@click.command()
@click.argument("alias_or_model")
@daemon_options
def history(alias_or_model: str, daemon: DaemonAddress) -> None:
    """Show what an alias has pointed at, or what a model came from, the newest first.

    \b
      mlrs models history stable                 where the alias has pointed, since when, and why
      mlrs models history mine@0123456789ab      the versions that led to it
    """
    from mlrs_cli import admin

    changes = admin.alias_changes(daemon, alias_or_model)
    if changes is not None:
        table = Table("time (UTC)", "model", "cause")
        for change in changes:
            table.add_row(_time(change), change.model, change.cause)
        print_table(table)
        return
    table = Table(
        Column("model", overflow="fold"), "aliases", "method", Column("runs", justify="right"), "updates"
    )
    with connected(daemon) as advisor:
        for row in _lineage(advisor, alias_or_model):
            table.add_row(*row)
    print_table(table)


@click.command()
@click.argument("first")
@click.argument("second")
@store_options
@click.option("--tenant", default="", help="Whose models, in the store. [default: those shared with all]")
@click.option(
    "--plot", metavar="FILE.png", type=click.Path(dir_okay=False, path_type=Path), help="Draw the rates too."
)
def diff(
    first: str, second: str, data_dir: Path | None, url: str | None, tenant: str, plot: Path | None
) -> None:
    """Show how much two models of a store differ: in their weights, and in what they advise.

    FIRST and SECOND are names, aliases or name@digest, or .safetensors files; no daemon is asked. Weights are
    compared by the norm of their difference over the norm of FIRST's. Learning rates are compared by their
    ratio on four loss curves that are always the same: one that falls, one that levels off, one with noise,
    and one that jumps up for a while (1,000 steps, 10 classes, SGD with momentum 0.9).

    \b
      mlrs models diff mine stable
      mlrs models diff mine mine@0123456789ab --plot difference.png
    """
    from mlrs_cli.models.comparing import compare_rates, draw, weight_changes

    before, after = _models(data_dir, url, tenant, first, second)
    if (changes := weight_changes(before, after)) is None:
        click.echo("weights: not comparable, the models are of different architectures or sizes")
    else:
        count = len(before.snapshots)
        table = Table("weights", *(Column(f"snapshot {index}", justify="right") for index in range(count)))
        for name, values in changes.items():
            table.add_row(name, *(f"{value:.3%}" for value in values))
        print_table(table)
    compared = compare_rates(before, after)
    table = Table("losses", *(Column(name, justify="right") for name in ("farthest", "at step", "typically")))
    for one in compared:
        step = int(one.logs.argmax())
        table.add_row(one.curve, _factor(one.logs[step]), str(step), _factor(one.logs.mean()))
    print_table(table)
    if plot is not None:
        try:
            with reported(OSError):
                draw(compared, (first, second), plot)
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error.name} is missing: pip install 'mlrs[train]'") from error
        click.echo(f"drew {plot}")


def _models(data_dir: Path | None, url: str | None, tenant: str, *wanted: str) -> Iterator[Model]:
    """Yield models of a store, or of files."""
    from mlrs_core.errors import ModelFileError
    from mlrs_core.models.checkpoint import read_model
    from mlrs_server.errors import AdvisorError
    from mlrs_server.models.catalog import ModelCatalog
    from mlrs_server.models.files import asking
    from mlrs_server.tenancy import check_tenant

    with reported(AdvisorError, ModelFileError, OSError):
        check_tenant(tenant)
        for one in wanted:
            if one.endswith(".safetensors"):
                yield read_model(Path(one))[0]
            else:
                with read_store(data_dir, url) as store:
                    found = ModelCatalog(asking(store)).find(one, tenant)
                yield found.model


def _lineage(advisor: mlrs.Advisor, model: str) -> Iterator[Iterable[str]]:
    """Yield a model and those that it came from, as rows of a table."""
    import mlrs

    found = advisor.model(model)
    while True:
        made: Any = found.provenance
        runs, updates = made.get("run_count"), made.get("updates") if "run_count" in made else None
        shown = ("-" if value is None else f"{value:,}" for value in (runs, updates))
        yield found.ref, ", ".join(found.aliases), str(made.get("method", "-")), *shown
        if not isinstance(parent := made.get("parent"), str):
            return
        try:
            found = advisor.model(parent)
        except mlrs.errors.ModelNotFoundError:
            name, _, digest = parent.partition("@")
            yield f"{name}@{digest[:SHORT]}", "", "not on this daemon", "-", "-"
            return


def _time(change: Any) -> str:
    if not change.HasField("time"):
        return "-"
    return f"{change.time.ToDatetime():%Y-%m-%d %H:%M:%S}"


def _factor(distance: float) -> str:
    import math

    return f"x{math.exp(distance):.3f}"
