"""`mlrs tokens`: who may call a daemon."""

from __future__ import annotations

import datetime as dt
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from mlrs_cli.root import data_dir_option, print_table, reported

if TYPE_CHECKING:
    from mlrs_server.auth.tokens import TokenFile

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds of each unit of a lifetime."""


class Lifetime(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """How long a token is good, such as 30d."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,6})([smhdw])", str(value))
        if not match or not int(match[1]):
            self.fail(f"{value!r} is no lifetime: a number and s, m, h, d or w, such as 30d", param, ctx)
        return float(int(match[1]) * UNITS_S[match[2]])


def tokens_file_option(command: Any) -> Any:
    """Add `--tokens-file` and `--data-dir`, which say where the tokens are."""
    option = click.option(
        "--tokens-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="MLRS_TOKENS_FILE",
        show_envvar=True,
        help="The daemon's file of tokens. Default: tokens.json in its data folder.",
    )
    return option(data_dir_option(command))


@click.group()
def tokens() -> None:
    """Make, list and revoke tokens.

    Work on the file of tokens, beside the daemon or wherever that file is shared from. A running daemon sees
    every change within two seconds. Once there is a token, every call needs one, and the daemon does not
    start without tokens any more, unless DATA_DIR/tokens.required is deleted.
    """


@tokens.command()
@click.option(
    "--tenant",
    default="",
    metavar="NAME",
    help="Whose runs and models it is for. [default: the default one's]",
)
@click.option(
    "--role",
    type=click.Choice(["read", "advise", "adapt", "admin"]),
    default="advise",
    show_default=True,
    help="read: look at runs, tasks, models and the daemon, change nothing; advise: open, observe and delete "
    "runs too; adapt: meta mode too; admin: import models too.",
)
@click.option("--expires", type=Lifetime(), metavar="30d", help="How long it is good. [default: for ever]")
@click.option("--name", default="", help="What it is for, for the list.")
@tokens_file_option
def create(
    tenant: str, role: str, expires: float | None, name: str, tokens_file: Path | None, data_dir: Path | None
) -> None:
    """Make a token, and print it: once, for only its hash is kept.

    \b
      mlrs tokens create --tenant acme --role advise --expires 30d --name ci
      mlrs tokens create --tenant acme --role read --name dashboard
      TOKEN=$(mlrs tokens create --tenant acme)
    """
    from mlrs_server.auth.roles import Role
    from mlrs_server.errors import AdvisorError

    with reported(AdvisorError):
        file = _file(tokens_file, data_dir)
        text, token = file.create(tenant=tenant, role=Role[role.upper()], name=name, lifetime_s=expires)
    click.echo(text)
    click.echo(
        f"This is token {token.id} of {_tenant(tenant)}, role {role}, {_until(token.expires)}. It is not "
        f"shown again.\nUse it: MLRS_TOKEN=... in the environment of training jobs and of `mlrs`, or\n"
        f"`authorization: Bearer ...` in any gRPC tool. Revoke it: mlrs tokens revoke {token.id}",
        err=True,
    )


@tokens.command("list")
@tokens_file_option
def list_tokens(tokens_file: Path | None, data_dir: Path | None) -> None:
    """List tokens, without their secrets."""
    from mlrs_server.errors import AdvisorError

    table = Table("id", "tenant", "role", "name", "created", "good")
    with reported(AdvisorError):
        try:
            found = _file(tokens_file, data_dir).read()
        except FileNotFoundError:
            found = {}
    now = time.time()
    for token in sorted(found.values(), key=lambda token: token.created):
        if token.revoked is not None:
            state = f"revoked {_day(token.revoked)}"
        else:
            state = _until(token.expires) if token.is_valid(now) else f"expired {_day(token.expires or now)}"
        table.add_row(token.id, token.tenant, token.role.spelling, token.name, _day(token.created), state)
    print_table(table)


@tokens.command()
@click.argument("token_id", metavar="ID")
@tokens_file_option
def revoke(token_id: str, tokens_file: Path | None, data_dir: Path | None) -> None:
    """Make a token worthless, on open streams too."""
    from mlrs_server.errors import AdvisorError

    with reported(AdvisorError):
        token = _file(tokens_file, data_dir).revoke(token_id)
    click.echo(f"revoked token {token.id} of {_tenant(token.tenant)}; daemons see it within two seconds")


def _file(tokens_file: Path | None, data_dir: Path | None) -> TokenFile:
    from mlrs_server.auth.tokens import TokenFile
    from mlrs_server.config import load_config

    return TokenFile(load_config(None, {"tokens_file": tokens_file, "data_dir": data_dir}).tokens_path)


def _tenant(tenant: str) -> str:
    return f"tenant {tenant}" if tenant else "the default tenant"


def _until(time_s: float | None) -> str:
    return "until revoked" if time_s is None else f"until {_day(time_s)}"


def _day(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
