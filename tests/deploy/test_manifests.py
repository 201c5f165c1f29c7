"""The Kubernetes manifests: valid, of settings that there are, and such that the daemon starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mlrs_cli.root import load
from mlrs_server.assembly import SERVICES
from mlrs_server.auth.exposure import check_exposure, is_local
from mlrs_server.auth.roles import Role
from mlrs_server.auth.tokens import TokenFile
from mlrs_server.config import ServerConfig
from mlrs_server.telemetry.health import STORE
from tests.deploy.manifests import FILES, container, documents, named, pod, pod_arguments, settings_of
from tests.server.auth.certificates import Authority, write_pair
from tests.support.daemon import Daemon
from tests.support.postgres import postgres_or_skip

VERSIONS = ("1.30", "1.34")
"""Versions of Kubernetes that the manifests are for."""
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def port_of(address: str | None) -> int:
    """Return the port of HOST:PORT."""
    assert address is not None
    return int(address.rpartition(":")[2])


def probe_command(name: str) -> list[str]:
    """Return the command of a probe."""
    command: list[str] = container()[name]["exec"]["command"]
    return command


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_object_fits_the_schema(file: Path, version: str) -> None:
    """Each document is what Kubernetes' schema of that version says, without a field that it lacks."""
    found = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    assert found
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)
        assert "namespace" not in document["metadata"], "where it goes is the operator's to say"


def test_the_schema_finds_mistakes() -> None:
    """The validator that the test above goes by refuses a misplaced field."""
    wrong = {**named("Deployment"), "replicas": 2}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_a_pod_may_listen_where_it_does() -> None:
    """The daemon listens beyond its machine, which it does with TLS and tokens, and not by `--insecure`."""
    settings = settings_of(pod_arguments())
    assert not is_local(settings.listen)
    assert not settings.insecure
    assert settings.tls is not None
    assert settings.tokens_file is not None
    check_exposure(settings.listen, tls=True, client_certificates=False, tokens=True, insecure=False)


def test_ports_are_those_that_the_daemon_opens() -> None:
    """Container, service and advertised address have the ports of the settings."""
    settings = settings_of(pod_arguments("10.0.0.7"))
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": port_of(settings.listen), "metrics": port_of(settings.metrics)}
    assert settings.advertise == f"10.0.0.7:{ports['grpc']}"
    assert named("Service")["spec"]["ports"][0]["port"] == ports["grpc"]
    assert f"--address=127.0.0.1:{ports['grpc']}" in probe_command("readinessProbe")


def test_every_variable_means_something() -> None:
    """Each MLRS_* variable of a manifest is a setting of the daemon, or the token of clients."""
    names = [variable["name"] for variable in container()["env"]]
    names += [key for found in documents() if found["kind"] == "Secret" for key in found["stringData"]]
    known = {f"MLRS_{name.upper()}" for name in ServerConfig.model_fields} | {"MLRS_TOKEN"}
    used = {name for name in names if name.startswith("MLRS_")}
    assert used == {"MLRS_STORE", "MLRS_TOKEN"}
    assert used <= known


def test_what_a_pod_refers_to_is_described() -> None:
    """Secrets that the pods mount are among the manifests, with their keys."""
    there = {(found["kind"], found["metadata"]["name"]): found for found in documents()}
    settings, files = settings_of(pod_arguments()), dict[str, Any]()
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    for volume in pod()["volumes"]:
        if "secret" in volume:
            secret = there["Secret", volume["secret"]["secretName"]]
            files |= {f"{mounts[volume['name']]}/{key}": secret for key in secret["stringData"]}
    assert {str(settings.tls_cert), str(settings.tls_key), str(settings.tokens_file)} <= files.keys()
    assert any(argument.removeprefix("--ca-file=") in files for argument in probe_command("livenessProbe"))
    (store,) = [variable for variable in container()["env"] if variable["name"] == "MLRS_STORE"]
    reference = store["valueFrom"]["secretKeyRef"]
    assert reference["key"] in there["Secret", reference["name"]]["stringData"]


@pytest.mark.parametrize("name", PROBES)
def test_probes_ask_for_what_there_is(name: str, tmp_path: Path) -> None:
    """Each probe is a command that `mlrs` has, and none restarts a daemon whose store fails."""
    authority = tmp_path / "ca.crt"
    authority.touch()
    program, verb, *arguments = [
        argument.replace("/etc/mlrs/tls/ca.crt", str(authority)) for argument in probe_command(name)
    ]
    asked = load(verb).make_context(verb, arguments).params["service"]
    assert (program, verb) == ("mlrs", "health")
    assert asked in {"", *SERVICES}
    assert asked != STORE


def test_a_pod_has_the_time_to_drain() -> None:
    """The grace period is longer than what comes before the drain, and the drain."""
    (wait,) = container()["lifecycle"]["preStop"]["exec"]["command"][1:]
    needed = float(wait) + settings_of(pod_arguments()).drain_timeout_s
    assert pod()["terminationGracePeriodSeconds"] >= needed + 30, "and storing may take a while"


def test_a_pod_writes_only_where_it_may() -> None:
    """Nobody's root: the file system is read-only, and folders that are written are volumes."""
    security = container()["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert pod()["securityContext"]["runAsNonRoot"]
    mounted = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
    (cache,) = [variable["value"] for variable in container()["env"] if variable["name"] == "NUMBA_CACHE_DIR"]
    data_dir = settings_of(pod_arguments()).data_dir
    assert {str(data_dir), cache, "/tmp"} == mounted  # noqa: S108  # the pod's own


def test_labels_agree() -> None:
    """Service, budget and policy select the pods of the deployment."""
    labels = named("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert named("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert named("Service")["spec"]["selector"] == labels
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels


def test_a_pod_starts_and_its_probes_pass(tmp_path: Path) -> None:
    """With the deployment's own arguments, on loopback, a daemon serves over TLS and the probes say so."""
    authority = Authority()
    tls = tmp_path / "tls"
    cert, key = write_pair(authority.server("mlrs"), tls)
    cert.rename(tls / "tls.crt")
    key.rename(tls / "tls.key")
    authority.write(tls / "ca.crt")
    tokens = TokenFile(tmp_path / "tokens" / "tokens.json")
    tokens.create(tenant="", role=Role.ADVISE)
    replacements = {
        "/etc/mlrs/": f"{tmp_path}/",
        "--listen=0.0.0.0:50051": "--listen=127.0.0.1:0",
        "--advertise=127.0.0.1:50051": "",
        "--metrics=0.0.0.0:9464": "--metrics=127.0.0.1:0",
        "--data-dir=/var/lib/mlrs": "",
    }

    def moved(arguments: list[str], changes: dict[str, str]) -> list[str]:
        for old, new in changes.items():
            assert any(old in argument for argument in arguments), old
            arguments = [argument.replace(old, new) for argument in arguments]
        return [argument for argument in arguments if argument]

    server = postgres_or_skip()
    try:
        arguments = moved(pod_arguments("127.0.0.1"), replacements)
        environment = {"MLRS_STORE": server.new_database()}
        with Daemon(tmp_path / "data", *arguments, environment=environment) as daemon:
            for name in PROBES:
                here = {"127.0.0.1:50051": daemon.address, "/etc/mlrs/": f"{tmp_path}/"}
                command = moved(probe_command(name), here)
                asked = subprocess.run(
                    [sys.executable, "-m", "mlrs_cli", *command[1:], "--timeout-s=20"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert asked.returncode == 0, asked.stderr
            assert daemon.stop() == 0
    finally:
        server.remove()
