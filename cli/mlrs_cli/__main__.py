"""`mlrs`: the root of the command line. Commands are imported when they are called."""

from __future__ import annotations

import importlib
import sys

try:
    import click
except ModuleNotFoundError:  # the thin client was installed, and nothing more
    click = None  # type: ignore[assignment]  # checked in main, before anything uses it

MISSING = "The command line is not installed. Install it with: pip install 'mlrs[server]'"

COMMANDS = {
    "serve": "mlrs_cli.serve",
    "runs": "mlrs_cli.runs",
    "models": "mlrs_cli.models",
    "train": "mlrs_cli.train",
}
"""The module of each command; the command has the module's last name."""


def main() -> None:
    """Run the command line."""
    if click is None:
        sys.exit(MISSING)
    from mlrs_cli.root import mlrs

    mlrs(prog_name="mlrs")


def load(name: str) -> click.Command:
    """Return a command by name."""
    command: click.Command = getattr(importlib.import_module(COMMANDS[name]), name)
    return command


if __name__ == "__main__":
    main()
