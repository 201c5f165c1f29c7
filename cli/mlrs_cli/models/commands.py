"""`mlrs models`: the models that runs can name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

from mlrs_cli.daemon.store import daemon_of, opened_store, store_options
from mlrs_cli.models.versions import diff, history, promote, rollback
from mlrs_cli.root import (
    DaemonAddress,
    access_options,
    connected,
    daemon_options,
    print_table,
    reported,
)
from mlrs_core.models.model import Model


@click.group()
def models() -> None:
    """List, show and import models; make new versions, and go back."""


for _command in (promote, rollback, history, diff):
    models.add_command(_command)


@models.command("list")
@daemon_options
def list_models(daemon: DaemonAddress) -> None:
    """List the models of a running daemon."""
    table = Table(
        Column("model", overflow="fold"), "aliases", "architecture", "snapshots", "parameters", "bytes"
    )
    with connected(daemon) as advisor:
        for model in advisor.models():
            table.add_row(
                model.ref,
                ", ".join(model.aliases),
                model.architecture,
                str(model.snapshots),
                f"{model.parameters:,}",
                f"{model.size_bytes:,}",
            )
    print_table(table)


@models.command()
@click.argument("model")
@daemon_options
def show(model: str, daemon: DaemonAddress) -> None:
    """Show a model of a running daemon: its architecture, and how it was made.

    MODEL is a name, an alias, or name@digest.
    """
    with connected(daemon) as advisor:
        found = advisor.model(model)
    facts = {
        "model": found.ref,
        "digest": found.digest,
        "aliases": list(found.aliases),
        "architecture": {"kind": found.architecture, **found.architecture_parameters},
        "snapshots": found.snapshots,
        "parameters": found.parameters,
        "size_bytes": found.size_bytes,
        "provenance": dict(found.provenance),
    }
    Console().print_json(data=facts)


@models.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@store_options
@click.option("--name", required=True, help="The name that runs will use.")
@click.option(
    "--gate-layout",
    type=click.Choice(["ifgo", "ifog"]),
    help="For .pth files, which do not say: ifgo for the authors' meta-test code (their published "
    "weights), ifog for their meta-train code.",
)
@click.option("--replace", is_flag=True, help="Point the name at this model if it is another's already.")
@click.option("--tenant", default="", help="Whose it is, in the store. [default: shared with all]")
@click.option("--address", metavar="HOST:PORT", help="Upload it to this daemon, for the token's tenant.")
@access_options
def import_model(
    files: tuple[Path, ...],
    data_dir: Path | None,
    url: str | None,
    name: str,
    gate_layout: str | None,
    *,
    replace: bool,
    tenant: str,
    daemon: DaemonAddress,
) -> None:
    """Import a model into a daemon's store, or upload it with --address.

    Daemons that share a database see it at once. Where a running daemon has the data folder, the model is
    uploaded to it: a SQLite store is one process's at a time. Uploading needs a token of the role admin where
    there are tokens.

    FILES is one .safetensors file as `mlrs train` writes it, or the MLR-SNet authors' .pth files, one
    per snapshot and in the order in which a run goes through them.

    \b
      mlrs models import --name mine runs/mine/model.safetensors
      mlrs models import --name mine --address 127.0.0.1:50051 runs/mine/model.safetensors
      mlrs models import --name official --gate-layout ifgo first.pth middle.pth last.pth
    """
    from mlrs_core.errors import ModelFileError
    from mlrs_core.models.checkpoint import dump_model
    from mlrs_server.errors import AdvisorError
    from mlrs_server.models.catalog import ModelCatalog
    from mlrs_server.models.files import asking
    from mlrs_server.tenancy import check_tenant

    if daemon.address and (replace or tenant or data_dir):
        raise click.UsageError("--replace, --tenant and --data-dir are for imports without a daemon")
    with reported(AdvisorError, ModelFileError, OSError):
        check_tenant(tenant)
        model = _read(files, gate_layout)
    if address := daemon.address or (daemon_of(data_dir) if url is None else ""):
        from mlrs_cli.admin import upload

        if replace or tenant:
            raise click.ClickException(
                f"a daemon has the data folder (at {address}), and takes no --replace or --tenant: stop it "
                "first, or import under another name and point an alias there (`mlrs models alias`)"
            )
        uploaded = upload(dataclasses.replace(daemon, address=address), dump_model(model), name)
        click.echo(f"uploaded {uploaded.ref} ({uploaded.size_bytes:,} bytes) to {address}")
        return
    with reported(AdvisorError), opened_store(data_dir, url, make=True) as (store, _):
        entry = ModelCatalog(asking(store)).add(model, name, tenant, replace=replace)
        where = store.name
    click.echo(f"imported {entry.ref} ({entry.size_bytes:,} bytes) into {where}")


@models.command()
@click.argument("alias")
@click.argument("model")
@daemon_options
def alias(alias: str, model: str, daemon: DaemonAddress) -> None:
    """Point ALIAS at MODEL, a name or name@digest. Runs that exist keep the model they began with.

    Needs a token of the role admin where there are tokens; the alias is that tenant's. The alias `default` is
    what runs get that name no model.
    """
    from mlrs_cli.admin import set_alias

    found = set_alias(daemon, alias, model)
    click.echo(f"{alias} is {found.ref} from now on")


def _read(files: Sequence[Path], gate_layout: str | None) -> Model:
    """Return the model in one .safetensors file, or in the authors' files."""
    from mlrs_core.models.checkpoint import read_model

    if all(file.suffix == ".safetensors" for file in files):
        if len(files) > 1:
            raise click.UsageError("give one .safetensors file: it holds all snapshots of its model")
        return read_model(files[0])[0]
    if any(file.suffix == ".safetensors" for file in files):
        raise click.UsageError("give either one .safetensors file or the authors' files, not both")
    if gate_layout is None:
        raise click.UsageError("--gate-layout: .pth files do not say theirs; the published ones need ifgo")
    try:
        from mlrs_core.models.official import import_official
    except ModuleNotFoundError as error:
        raise click.ClickException("reading .pth files needs torch: pip install 'mlrs[train]'") from error
    return import_official(files, gate_layout="ifgo" if gate_layout == "ifgo" else "ifog")
