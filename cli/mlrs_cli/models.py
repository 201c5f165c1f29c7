"""`mlrs models`: the models that runs can name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

import mlrs_client
from mlrs_cli.root import address_option, data_dir_option, print_table, reported
from mlrs_core.model import Model


@click.group()
def models() -> None:
    """List, show and import models."""


@models.command("list")
@address_option
def list_models(address: str) -> None:
    """List the models of a running daemon."""
    table = Table(
        Column("model", overflow="fold"), "aliases", "architecture", "snapshots", "parameters", "bytes"
    )
    with reported(mlrs_client.MlrsError), mlrs_client.connect(address) as advisor:
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
@address_option
def show(model: str, address: str) -> None:
    """Show a model of a running daemon: its architecture, and how it was made.

    MODEL is a name, an alias, or name@digest.
    """
    with reported(mlrs_client.MlrsError), mlrs_client.connect(address) as advisor:
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
@data_dir_option
@click.option("--name", required=True, help="The name that runs will use.")
@click.option(
    "--gate-layout",
    type=click.Choice(["ifgo", "ifog"]),
    help="For .pth files, which do not say: ifgo for the authors' meta-test code (their published "
    "weights), ifog for their meta-train code.",
)
@click.option("--replace", is_flag=True, help="Point the name at this model if it is another's already.")
def import_model(
    files: tuple[Path, ...], data_dir: Path | None, name: str, gate_layout: str | None, *, replace: bool
) -> None:
    """Import a model into a daemon's data folder. A running daemon sees it at once.

    FILES is one .safetensors file as `mlrs train` writes it, or the MLR-SNet authors' .pth files, one
    per snapshot and in the order in which a run goes through them.

    \b
      mlrs models import --name mine runs/mine/model.safetensors
      mlrs models import --name official --gate-layout ifgo first.pth middle.pth last.pth
    """
    from mlrs_core.errors import ModelFileError
    from mlrs_server.config import load_config
    from mlrs_server.errors import AdvisorError
    from mlrs_server.models import ModelCatalog

    with reported(AdvisorError, ModelFileError, OSError):
        settings = load_config(None, {"data_dir": data_dir})
        model = _read(files, gate_layout)
        entry = ModelCatalog(settings.data_dir).add(model, name, replace=replace)
    click.echo(f"imported {entry.ref} ({entry.size_bytes:,} bytes) into {settings.data_dir}")


def _read(files: Sequence[Path], gate_layout: str | None) -> Model:
    """Return the model in one .safetensors file, or in the authors' files."""
    from mlrs_core.checkpoint import read_model

    if all(file.suffix == ".safetensors" for file in files):
        if len(files) > 1:
            raise click.UsageError("give one .safetensors file: it holds all snapshots of its model")
        return read_model(files[0])[0]
    if any(file.suffix == ".safetensors" for file in files):
        raise click.UsageError("give either one .safetensors file or the authors' files, not both")
    if gate_layout is None:
        raise click.UsageError("--gate-layout: .pth files do not say theirs; the published ones need ifgo")
    try:
        from mlrs_core.official import import_official
    except ModuleNotFoundError as error:
        raise click.ClickException("reading .pth files needs torch: pip install 'mlrs[train]'") from error
    return import_official(files, gate_layout="ifgo" if gate_layout == "ifgo" else "ifog")
