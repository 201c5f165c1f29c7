"""What `pip install` of the distribution brings."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_every_package_and_the_shipped_models(wheel: Path) -> None:
    """The wheel has the eight packages, typed, migrations, and small shipped models; no stray folders."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    tops = {name.partition("/")[0] for name in sizes if ".dist-info" not in name}
    packages = ("bench", "cli", "core", "proto", "server", "train", "web")
    assert tops == {"mlrs", *(f"mlrs_{package}" for package in packages)}
    assert all(f"{top}/py.typed" in sizes for top in tops)
    for model in ("mlr-snet", "paper"):
        assert 0 < sizes[f"mlrs_core/models/{model}.safetensors"] <= 200_000
    assert "mlrs_web/static/index.html" in sizes
    assert 0 < sizes["mlrs_web/demo/recording.sqlite3.xz"] < 300_000
    migrations = "mlrs_server/storage/migrations"
    assert f"{migrations}/env.py" in sizes
    assert any(name.startswith(f"{migrations}/versions/v0006") for name in sizes)


def test_plain_install_is_the_thin_client(wheel: Path, tmp_path: Path) -> None:
    """`pip install` into an empty environment imports the client, with neither numpy nor torch there."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if "No matching distribution" in installed.stderr and not os.environ.get("CI"):
        pytest.skip("no package registry in reach to take grpcio and protobuf from")
    assert installed.returncode == 0, installed.stderr
    code = "import mlrs, importlib.util as u; print([n for n in ('numpy', 'torch') if u.find_spec(n)])"
    tried = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    assert (tried.stdout.strip(), tried.stderr) == ("[]", "")
    command = subprocess.run([str(python.with_name("mlrs"))], capture_output=True, text=True, check=False)
    assert command.returncode == 1
    assert "pip install 'mlrs[server]'" in command.stderr
