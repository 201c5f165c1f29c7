"""The root command: help that teaches, and no heavy imports for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from mlrs_cli.root import COMMANDS, command, load


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(name: str) -> None:
    """`mlrs COMMAND --help` works, and each of its options says what it does."""
    result = CliRunner().invoke(command, [name, "--help"])
    assert result.exit_code == 0, result.output
    loaded = load(name)
    commands = [loaded, *getattr(loaded, "commands", {}).values()]
    for each in commands:
        assert each.help
        options = [parameter for parameter in each.params if parameter.param_type_name == "option"]
        assert all(option.help for option in options), each.name


def test_help_loads_neither_torch_nor_the_daemon() -> None:
    """`mlrs --help` is quick: it imports no torch, numpy, grpc server or database."""
    code = (
        "import sys\nfrom mlrs_cli.root import command\ncommand(['--version'], standalone_mode=False)\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'sqlalchemy', 'grpc', 'mlrs_server'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_serve_names_what_is_wrong() -> None:
    """A wrong setting of `mlrs serve` is named with its flag, its variable and its line in the file."""
    result = CliRunner().invoke(command, ["serve", "--listen", "nowhere"])
    assert result.exit_code == 1
    assert all(name in result.output for name in ("--listen", "MLRS_LISTEN", "HOST:PORT"))
