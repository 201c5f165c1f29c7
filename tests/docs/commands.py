"""Runs the shell commands that a page shows, as far as tests can run them.

No shell is started. Commands of other programs are not run; only the files and extras that they name are
checked.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Callable

import click
import grpc
from click.testing import CliRunner
from google.protobuf import json_format, message_factory

from mlrs_cli.root import command as mlrs_command
from mlrs_server.config import load_config
from tests.docs.blocks import ROOT
from tests.support.stubs import METHODS

PARSED = {
    "bench memory": "takes hours; tests/bench/memory runs a small part",
    "bench quality": "takes minutes; with --list it runs",
    "dashboard": "serves until it is stopped; tests/cli/test_dashboard.py runs it",
    "models diff": "needs a model that was promoted; tests/cli/test_versions.py runs it",
    "models history": "as `models diff`",
    "models promote": "as `models diff`",
    "models rollback": "as `models diff`",
    "train": "takes minutes for each method; tests/train/test_command.py runs them",
}
"""The commands and groups of `mlrs` that do not run, each with the reason; their arguments are checked."""
NOT_RUN = {
    "cp": "of the machine",
    "install": "of the machine",
    "kubectl": "needs a cluster",
    "pip": "would change the environment",
    "psql": "needs a server's administrator",
    "python3": "would make an environment",
    "ray": "starts a cluster",
    "ssh": "needs another machine",
    "systemctl": "needs systemd",
    "tensorboard": "serves until it is stopped",
    "torchrun": "tests/e2e/ranks/test_torchrun.py runs it",
    "useradd": "needs the machine's administrator",
}
"""The commands that do not run, each with the reason."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def carry_out(line: str) -> str:
    """Run a line of a shell as far as possible; return what it prints.

    Raises:
        AssertionError: the line fails, or names something that does not exist.
    """
    printed = ""
    for part in line.removesuffix("&").split("&&"):
        words = shlex.split(part, comments=True)
        check_names(words)
        command = words[0].rpartition("/")[2]
        if command not in NOT_RUN:
            assert command in HANDLERS, f"nothing is known of the command {command}"
            printed += HANDLERS[command](words[1:])
    return printed


def check_names(words: list[str]) -> None:
    """Check that the files of the repository and the extras that are named exist."""
    folders = ("deploy/", "docs/", "examples/", "performance/")
    files = [word for word in words if word.startswith(folders)]
    assert [file for file in files if not (ROOT / file).exists()] == []
    extras = [extra for word in words for extra in re.findall(r"mlrs\[(.*?)\]", word)]
    assert [extra for extra in extras if not set(extra.split(",")) <= set(EXTRAS)] == []


def mlrs(words: list[str]) -> str:
    """Run a command of `mlrs`, or check its arguments."""
    if not {"--help", "--list"} & set(words):
        name, command, rest = found(words)
        settings = command.make_context(name, rest).params
        if name == "serve":
            load_config(settings.pop("config"), settings)
        if name == "serve" or any(f"{name} ".startswith(f"{parsed} ") for parsed in PARSED):
            return ""
    result = CliRunner().invoke(mlrs_command, words)
    assert result.exit_code == 0, result.output
    return result.output


def found(words: list[str]) -> tuple[str, click.Command, list[str]]:
    """Return the name of the command of `mlrs` that words begin with, the command, and its arguments.

    Raises:
        AssertionError: `mlrs` has no such command.
    """
    command: click.Command | None = mlrs_command
    names, rest = [], list(words)
    while isinstance(command, click.Group) and rest:
        names.append(rest.pop(0))
        command = command.get_command(click.Context(command), names[-1])
    assert command is not None, f"there is no command {' '.join(names)}"
    return " ".join(names), command, rest


def check_mention(line: str) -> None:
    """Check that a command of `mlrs` that prose mentions exists and has the options that are named.

    Raises:
        AssertionError: the command or an option does not exist.
    """
    _, command, rest = found(line.split()[1:])
    options = [option for parameter in command.params for option in parameter.opts]
    named = [word for word in rest if word.startswith("--") and word != "--help"]
    assert [option for option in named if option not in options] == []


def grpcurl(words: list[str]) -> str:
    """Make a call as `grpcurl -plaintext -d JSON ADDRESS SERVICE/METHOD` does."""
    plaintext, data, text, address, path = words
    assert (plaintext, data) == ("-plaintext", "-d")
    service, _, method = path.partition("/")
    rpc = METHODS[method]
    assert service == rpc.containing_service.full_name
    request, answer = (message_factory.GetMessageClass(kind) for kind in (rpc.input_type, rpc.output_type))
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{path}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        )
        return json_format.MessageToJson(call(json_format.Parse(text, request()), timeout=30))


def make(words: list[str]) -> str:
    """Check that `make` has these targets."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(words) <= set(targets)
    return ""


def python(words: list[str]) -> str:
    """Check that a script takes the options that it is given."""
    if words[0] == "-m":
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    script = ROOT / words[0]
    assert script.exists() or (script.with_suffix("") / "__main__.py").exists(), f"there is no {script}"
    folders = {script.parent, script.with_suffix(""), ROOT / "performance" / "report"}
    files = [path for folder in folders for path in folder.glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    options = re.findall(r"--[a-z-]+", " ".join(words[1:]))
    assert [option for option in options if f'"{option}"' not in sources] == []
    return ""


def export(words: list[str]) -> str:
    """Set a variable of the environment."""
    name, _, value = words[0].partition("=")
    os.environ[name] = value
    return ""


HANDLERS: dict[str, Callable[[list[str]], str]] = {
    "export": export,
    "grpcurl": grpcurl,
    "make": make,
    "mlrs": mlrs,
    "python": python,
}
