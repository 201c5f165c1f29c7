"""Which daemon the dashboard shows."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from mlrs_cli.root import DEFAULT_ADDRESS, reported

ANSWER_S = 2.0
"""How long a daemon may take to answer whether it is there, in seconds."""
ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A daemon to show."""

    target: tuple[str, ...] | None
    """Its addresses; `None`: this user's daemon, which the client starts when it is needed."""
    address: str
    """Its address, for people."""
    is_ours: bool = False
    """Whether it was started for the dashboard."""

    def told(self, url: str) -> AbstractContextManager[None]:
        """Tell programs that train with this user's daemon where its dashboard is."""
        from mlrs.errors import MlrsError
        from mlrs.local.dashboard import told_url
        from mlrs.local.place import local_place

        try:
            place = local_place()
        except MlrsError:
            return nullcontext()
        shows_it = self.target is None or place.address in self.target
        return told_url(place, url) if shows_it else nullcontext()


def shown_daemon(stack: ExitStack, address: str, data_dir: Path | None, *, demo: bool) -> Shown:
    """Return the daemon to show.

    Args:
        stack: ends what is started for the dashboard.
        address: what the user gave; empty: nothing.
        data_dir: the folder whose runs are shown.
        demo: whether recorded runs are.

    Raises:
        click.ClickException: two of these were given, or no daemon can be started on the folder.
    """
    by_environment = click.get_current_context().get_parameter_source("address") is ENVIRONMENT
    if [bool(address and not by_environment), data_dir is not None, demo].count(True) > 1:
        raise click.UsageError("--connect, --data-dir and --demo exclude each other")
    if demo or data_dir is not None:
        return _served(stack, data_dir)
    if address:
        addresses = tuple(each.strip() for each in address.split(",") if each.strip())
        return Shown(target=addresses, address=", ".join(addresses))
    return _usual()


def _usual() -> Shown:
    """Return this user's daemon, or the one at the usual address if that alone runs."""
    from mlrs.errors import MlrsError
    from mlrs.local.place import local_place
    from mlrs.local.starting import running_at
    from mlrs.transport.probe import answers

    usual = Shown(target=(DEFAULT_ADDRESS,), address=DEFAULT_ADDRESS)
    try:
        place = local_place()
    except MlrsError:  # there is no place for a daemon of this user
        return usual
    if running_at(place) is None and answers(DEFAULT_ADDRESS, ANSWER_S):
        return usual
    return Shown(target=None, address=place.address)


def _served(stack: ExitStack, data_dir: Path | None) -> Shown:
    """Return a daemon on a folder, or on recorded runs: the one that has the folder, else a new one."""
    from mlrs_web.demo.recording import STORE, unpacked
    from mlrs_web.demo.serving import NotServedError, served

    if data_dir is not None:
        if not (data_dir / STORE).exists():
            raise click.ClickException(
                f"--data-dir: no daemon has kept runs in {data_dir}; there is no {STORE}"
            )
        if address := _daemon_of(data_dir):
            return Shown(target=(address,), address=address)
    with reported(NotServedError):
        folder = stack.enter_context(unpacked()) if data_dir is None else data_dir
        address = stack.enter_context(served(folder))
    return Shown(target=(address,), address=str(data_dir or "recorded runs"), is_ours=True)


def _daemon_of(data_dir: Path) -> str:
    """Return where the daemon listens that uses a folder now; empty: none answers."""
    from mlrs.transport.probe import answers
    from mlrs_server.system.data_folder import ADDRESS_FILE

    file = data_dir / ADDRESS_FILE  # which a daemon that was killed leaves behind
    address = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    return address if address and answers(address, ANSWER_S) else ""
