"""`mlrs store`: look after what a daemon keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from mlrs_cli.root import F, data_dir_option, print_table, reported

if TYPE_CHECKING:
    from mlrs_server.storage import SqlStore

SAFE_SQLITE = (3, 51, 3)
"""Before it, SQLite can corrupt a file in use when a second process opens it."""
SHOWN = 50
"""Runs that a table of problems has at most."""


@click.group()
def store() -> None:
    """Check, back up, restore and vacuum the runs that a daemon keeps.

    The store is a SQLite file in the daemon's data folder, or a PostgreSQL database (--store).

    \b
      mlrs store check                    is everything there, and undamaged?
      mlrs store backup runs.backup       runs and models, in one file
      mlrs store restore runs.backup      into a folder or database that has none

    Checks and backups are made while daemons run. What writes a SQLite store is one process's at a time: to
    restore and vacuum, stop the daemon first, start it again after. Training goes on meanwhile: clients keep
    their losses and send them when the daemon is back.
    """


def store_options(command: F) -> F:
    """Add the options that say which store."""
    named = click.option(
        "--store",
        "url",
        metavar="URL",
        envvar="MLRS_STORE",
        show_envvar=True,
        help="A database that daemons share, postgresql://USER:PASSWORD@HOST/NAME; better said in the "
        "variable. Default: the file in the data folder.",
    )
    return data_dir_option(named(command))


@store.command()
@store_options
@click.option("--replay", is_flag=True, help="Also compute each run again: all bits must agree.")
def check(data_dir: Path | None, url: str | None, *, replay: bool) -> None:
    """Read every run from end to end, and say what is wrong.

    Checksums are verified, those of networks in meta mode as well, steps counted, and each run's state is
    held against its record. Of a SQLite file that a daemon has, this is done on a copy as of now, in the
    system's temporary folder (TMPDIR). With --replay each learning rate is computed again, which takes about
    a second for half a million steps, and networks are held against what that gives.

    Exits with 1 if anything is wrong. A damaged run is refused by the daemon and harms no other: delete it
    (`mlrs runs delete`), or bring a backup back. Where a stored network alone is damaged, the daemon makes it
    again of the run's record.
    """
    from mlrs_server.models.catalog import ModelCatalog
    from mlrs_server.models.files import asking
    from mlrs_server.ops.checking import check_runs, check_whole, count_runs

    with _opened_to_read(data_dir, url, beside=None) as (opened, _):
        problems = [("", problem) for problem in check_whole(opened)]
        catalog = ModelCatalog(asking(opened)) if replay else None
        checked, steps = 0, 0
        with _progress("checking runs", count_runs(opened)) as advance:
            for found in check_runs(opened, catalog):
                checked, steps = checked + 1, steps + found.steps
                problems += [(found.run_id, found.problem)] if found.problem else []
                advance(1)
    if problems:
        table = Table(Column("run", overflow="fold"), Column("what is wrong", overflow="fold"))
        for run_id, problem in problems[:SHOWN]:
            table.add_row(run_id or "(the store)", problem)
        print_table(table)
    counted = f"{checked:,} runs of {steps:,} steps"
    if problems:
        raise click.ClickException(f"{counted} checked; {len(problems):,} problems")
    click.echo(f"{counted} checked; nothing is wrong")


@store.command()
@store_options
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Overwrite FILE if it is there.")
def backup(data_dir: Path | None, url: str | None, file: Path, *, replace: bool) -> None:
    """Write all runs and models to FILE.

    FILE is one SQLite file, there whole or not at all, whatever engine the store is of: a backup of a
    PostgreSQL store can be restored into a SQLite store, and the other way round.

    Daemons go on meanwhile; the backup is of one moment. Beside FILE there must be space for twice its size.
    """
    from mlrs_server.storage.backups import back_up, count_rows
    from mlrs_server.system.data_folder import STORE_FILE

    if file.exists() and not replace:
        raise click.ClickException(f"there is a file {file}; pass --replace to overwrite it")
    with (
        _opened_to_read(data_dir, url, beside=file.parent) as (opened, folder),
        _progress("copying rows", count_rows(opened)) as advance,
    ):
        back_up(opened, file, advance)
        name = opened.name if url else folder / STORE_FILE
    click.echo(f"backed up {name} to {file} ({file.stat().st_size:,} bytes)")


@store.command()
@store_options
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Give up the runs that are there now.")
def restore(data_dir: Path | None, url: str | None, file: Path, *, replace: bool) -> None:
    """Bring the runs and models of a backup back. All daemons of the store must be stopped.

    A store that has runs is refused; with --replace its runs are given up for the backup's: a SQLite file,
    damaged or not, is renamed to mlrs.sqlite3.replaced, the tables of a PostgreSQL store are emptied, but
    for its models. Names and aliases become the backup's. What clients have observed since the backup they
    send again, as far as they keep it.
    """
    from mlrs_server.storage.backups import count_rows, opened_backup, restore, restore_file

    with ExitStack() as stack, _reported():
        with opened_backup(file) as source:
            rows = count_rows(source)
        if url is not None:
            opened, _ = stack.enter_context(opened_store(data_dir, url))
            advance = stack.enter_context(_progress("copying rows", rows))
            restore(file, opened, advance, replace=replace)
            where = opened.name
        else:
            path = stack.enter_context(_locked(_folder(data_dir)))
            advance = stack.enter_context(_progress("copying rows", rows))
            restore_file(file, path, advance, replace=replace)
            where = str(path)
    click.echo(f"restored {file} into {where}")


@store.command()
@store_options
def vacuum(data_dir: Path | None, url: str | None) -> None:
    """Give back the space of runs that were deleted, and of chunks that were merged.

    A SQLite file is written anew, so as much space again is needed meanwhile.
    """
    with opened_store(data_dir, url) as (opened, folder):
        file = folder / "mlrs.sqlite3"
        before = file.stat().st_size if url is None else 0
        opened.vacuum()
    click.echo(
        f"{opened.name}: " + (f"{before:,} -> {file.stat().st_size:,} bytes" if url is None else "done")
    )


def _reported() -> Any:
    from mlrs_server.errors import AdvisorError

    return reported(AdvisorError)


def _folder(data_dir: Path | None) -> Path:
    """Return the data folder."""
    from mlrs_server.config import load_config

    return load_config(None, {"data_dir": data_dir}).data_dir


def daemon_of(data_dir: Path | None) -> str:
    """Return where the daemon listens that has a data folder now; "" if none does."""
    from mlrs_server.errors import AdvisorError
    from mlrs_server.system.data_folder import ADDRESS_FILE, locked_folder

    with _reported():
        folder = _folder(data_dir)
    try:
        with locked_folder(folder):
            return ""
    except AdvisorError:
        file = folder / ADDRESS_FILE
        return file.read_text(encoding="utf-8") if file.exists() else ""


@contextmanager
def opened_store(
    data_dir: Path | None, url: str | None, *, make: bool = False
) -> Iterator[tuple[SqlStore, Path]]:
    """Open a store, made if missing where that is wanted; yield it and the data folder."""
    from mlrs_server.models.legacy_folder import bring_models_over
    from mlrs_server.storage import open_store

    with ExitStack() as stack, _reported():
        folder = _folder(data_dir)
        where = url or stack.enter_context(_locked(folder))
        if isinstance(where, Path) and not where.exists() and not make:
            raise click.ClickException(f"there is no store {where}; --data-dir or --store says which")
        opened = stack.enter_context(closing(open_store(where)))
        bring_models_over(folder, opened)
        yield opened, folder


@contextmanager
def read_store(data_dir: Path | None, url: str | None) -> Iterator[SqlStore]:
    """Open a store to read it, also a SQLite file that a daemon has; made if missing."""
    from mlrs_server.storage import open_to_read
    from mlrs_server.system.data_folder import STORE_FILE

    if url is None and daemon_of(data_dir):
        with _reported(), closing(open_to_read(_folder(data_dir) / STORE_FILE)) as store:
            yield store
    else:
        with opened_store(data_dir, url, make=True) as (store, _):
            yield store


@contextmanager
def _opened_to_read(
    data_dir: Path | None, url: str | None, *, beside: Path | None
) -> Iterator[tuple[SqlStore, Path]]:
    """Open a store, or a copy, in `beside`, of the file that a daemon has; yield it and the data folder."""
    from mlrs_server.storage.backups import copied_online
    from mlrs_server.system.data_folder import STORE_FILE, FolderTakenError, locked_folder

    with ExitStack() as stack, _reported():
        folder = _folder(data_dir)
        try:
            with nullcontext() if url else locked_folder(folder):
                pass
        except FolderTakenError:
            yield stack.enter_context(copied_online(folder / STORE_FILE, beside=beside)), folder
        else:
            yield stack.enter_context(opened_store(data_dir, url))


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Keep daemons from a folder; yield the file of its store."""
    from mlrs_server.errors import AdvisorError
    from mlrs_server.system.data_folder import STORE_FILE, locked_folder

    with ExitStack() as held:
        try:
            held.enter_context(locked_folder(folder))
        except AdvisorError as error:
            why = (
                f"; SQLite {sqlite3.sqlite_version} can corrupt a file that two processes have open"
                if sqlite3.sqlite_version_info < SAFE_SQLITE
                else ""
            )
            raise click.ClickException(f"{error}{why}") from error
        yield folder / STORE_FILE


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far something is, on standard error; yield what moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
