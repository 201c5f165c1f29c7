"""What the tests read: the manifests, the unit, and what `mlrs` makes of the arguments in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mlrs_cli.root import load
from mlrs_server.config import ServerConfig, load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
UNIT = DEPLOY / "systemd" / "mlrs.service"


def documents() -> list[dict[str, Any]]:
    """Return everything that the manifests describe."""
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def named(kind: str, name: str = "mlrs") -> dict[str, Any]:
    """Return the object of a kind and a name."""
    (found,) = [
        document
        for document in documents()
        if document["kind"] == kind and document["metadata"]["name"] == name
    ]
    return found


def pod() -> dict[str, Any]:
    """Return what the pods of the deployment are."""
    spec: dict[str, Any] = named("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """Return the one container of the pods."""
    (only,) = pod()["containers"]
    assert isinstance(only, dict)
    return only


def settings_of(arguments: Sequence[str]) -> ServerConfig:
    """Return the settings that `mlrs serve` would run with; an option that there is none of is an error."""
    context = load("serve").make_context("mlrs serve", list(arguments))
    flags = {name: value for name, value in context.params.items() if name != "config"}
    return load_config(None, flags)


def pod_arguments(pod_ip: str = "10.0.0.7") -> list[str]:
    """Return the arguments of `mlrs serve` in a pod."""
    command, *arguments = [argument.replace("$(POD_IP)", pod_ip) for argument in container()["args"]]
    assert command == "serve"
    return arguments


def unit() -> dict[str, list[str]]:
    """Return the settings of the unit, of all sections; a setting may be there several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def unit_arguments() -> list[str]:
    """Return the arguments of `mlrs serve` in the unit."""
    (command,) = unit()["ExecStart"]
    program, verb, *arguments = command.replace("%S", "/var/lib").split()
    assert (Path(program).name, verb) == ("mlrs", "serve")
    return arguments
