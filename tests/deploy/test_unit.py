"""The systemd unit and the Dockerfile."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, ROOT, UNIT, settings_of, unit, unit_arguments

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
ANALYZE = shutil.which("systemd-analyze")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_unit_starts_with_settings_that_there_are() -> None:
    """Each option in the unit is one of `mlrs serve`, and data is kept in the folder that systemd makes."""
    settings = settings_of(unit_arguments())
    assert settings.data_dir == Path("/var/lib") / unit()["StateDirectory"][0]
    assert unit()["Environment"] == [f"NUMBA_CACHE_DIR=%C/{unit()['CacheDirectory'][0]}"]


def test_the_unit_gives_time_to_drain() -> None:
    """It is waited for longer than the daemon may drain, and than storing may take."""
    assert float(unit()["TimeoutStopSec"][0]) >= settings_of(unit_arguments()).drain_timeout_s + 30


def test_the_unit_is_sealed() -> None:
    """The daemon is no root, gets no new rights, writes only its own folders, and comes back if it fails."""
    expected = {
        "User": "mlrs",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "CapabilityBoundingSet": "",
        "Restart": "on-failure",
        "UMask": "0077",
    }
    assert {name: unit()[name][-1] for name in expected} == expected
    assert "MemoryDenyWriteExecute" not in unit(), "kernels are compiled at the start"


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """`systemd-analyze verify` has no complaint, once the program is one that is installed here."""
    file = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8").replace("/opt/mlrs/bin/mlrs", sys.executable)
    file.write_text(text, encoding="utf-8")
    found = subprocess.run([str(ANALYZE), "verify", str(file)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_image_installs_extras_that_there_are() -> None:
    """The extras that the Dockerfile names are those of the distribution."""
    (named,) = re.findall(r'"\$\{wheel\}\[([a-z,]+)\]"', DOCKERFILE)
    assert set(named.split(",")) == {"dashboard", "postgres", "server"}
    assert set(named.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_image_is_of_a_python_that_will_do() -> None:
    """Both stages have one Python, among those that the distribution is for."""
    (version,) = set(re.findall(r"^FROM python:(3\.\d+)-slim", DOCKERFILE, re.MULTILINE))
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_the_build_sees_what_a_wheel_needs() -> None:
    """What the build is let see has every package of the wheel, and the files that it is made with."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {package.partition("/")[0] for package in packages}
    needed |= {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"]}
    needed |= set(PROJECT["project"]["license-files"])
    assert not [name for name in needed if not any(fnmatch.fnmatch(name, pattern) for pattern in let_in)]
    assert all((ROOT / name).exists() for name in let_in)
